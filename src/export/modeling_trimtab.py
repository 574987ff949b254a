"""Classifiers of texts by the mean of their tokens' vectors or by the first one, and of pairs by two means, as trimtab
trained them.

The classes of transformers read the first token through a pooler layer, so these stand here:

    AutoModelForSequenceClassification.from_pretrained(DIRECTORY, trust_remote_code=True)

ApartForSequenceClassification takes the texts of n pairs as 2n texts, each behind its partner, and gives n answers.
"""

import torch
from transformers import {Family}Config, {Family}Model, {Family}PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class MeanConfig({Family}Config):
    model_type = "trimtab-mean-{family}"  # not {family}: its class would load this and answer at random


class MeanForSequenceClassification({Family}PreTrainedModel):
    config_class = MeanConfig

    def __init__(self, config):
        super().__init__(config)
        self.{family} = {Family}Model(config{arguments})
        self.classifier = torch.nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, **inputs):
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        hidden = self.{family}(input_ids, attention_mask=attention_mask, **inputs).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)  # [batch, tokens, 1]
        return SequenceClassifierOutput(logits=self.classifier(self.features(self.pooled(hidden, mask))))

    def pooled(self, hidden, mask):
        return (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)

    def features(self, mean):
        return mean


class FirstConfig({Family}Config):
    model_type = "trimtab-first-{family}"


class FirstForSequenceClassification(MeanForSequenceClassification):
    config_class = FirstConfig

    def pooled(self, hidden, mask):
        return hidden[:, 0]


class ApartConfig({Family}Config):
    model_type = "trimtab-apart-{family}"


class ApartForSequenceClassification(MeanForSequenceClassification):
    config_class = ApartConfig

    def __init__(self, config):
        super().__init__(config)
        self.classifier = torch.nn.Linear(2 * config.hidden_size, config.num_labels)
        self.post_init()

    def features(self, mean):
        scaled = torch.nn.functional.normalize(mean, dim=1) * mean.shape[1] ** 0.5
        a, b = scaled[0::2], scaled[1::2]
        return torch.cat([(1 + (a - b) ** 2).sqrt() - 1, a * b], 1)
