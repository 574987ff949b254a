"""A classifier of texts by the mean of their tokens' vectors, as trimtab trained it.

The classes of transformers for this read the first token alone, so this one stands here:

    AutoModelForSequenceClassification.from_pretrained(DIRECTORY, trust_remote_code=True)
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
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        return SequenceClassifierOutput(logits=self.classifier(mean))
