/* Learns from labelled lines, answers a text, and finds the same answer again in the file it wrote.
 *
 *     learn BASE DATA.tsv OUT.bias.safetensors TEXT
 *
 * README.md beside this file says how to build it. */
#include <stdio.h>
#include <string.h>

#include "trimtab.h"

/* Says what went wrong, and 1; 0 where nothing did. The message is of this thread's last failure. */
static int failed(const char *what, trimtab_status status) {
    if (status == TRIMTAB_STATUS_OK)
        return 0;
    fprintf(stderr, "learn: %s: %s (status %d)\n", what, trimtab_last_error(), (int)status);
    return 1;
}

/* Called on this thread after each step and each epoch. An app would draw a bar, and return TRIMTAB_REPLY_CANCEL when
 * the user leaves. */
static int32_t on_progress(const trimtab_progress *p, void *user) {
    int *epochs_seen = user;
    if (p->event == TRIMTAB_EVENT_EPOCH) {
        *epochs_seen += 1;
        fprintf(stderr, "epoch %zu of %zu: loss %.4f\n", p->epoch, p->epochs, p->loss);
    }
    return TRIMTAB_REPLY_CONTINUE;
}

/* Prints the answer and every label's probability. */
static int answer(const trimtab_model *model, const char *text) {
    trimtab_prediction *prediction = NULL;
    if (failed("predict", trimtab_model_predict(model, text, NULL, &prediction)))
        return 1;
    printf("%s\n", trimtab_prediction_text(prediction));
    for (size_t i = 0; i < trimtab_prediction_count(prediction); i++)
        printf("  %.6f  %s\n", trimtab_prediction_probability(prediction, i), trimtab_prediction_label(prediction, i));
    trimtab_prediction_free(prediction);
    return 0;
}

/* Learns, answers and saves; the base and the data are the caller's. */
static int learn(const trimtab_base *base, const trimtab_examples *examples, const char *out, const char *text) {
    trimtab_model *model = NULL;
    trimtab_train_options options;
    trimtab_report report;
    int epochs_seen = 0;
    /* All zero: everything is chosen from the examples. */
    memset(&options, 0, sizeof options);
    options.seed = 7;
    /* No labels are named: those of the examples are learned. */
    int bad = failed("new model", trimtab_model_new(base, "classify", NULL, 0, NULL, &model));
    bad = bad || failed("train", trimtab_model_train(model, examples, NULL, &options, on_progress, &epochs_seen, &report));
    if (!bad)
        fprintf(stderr, "%zu examples, %zu biases, %zu steps in %.2f s\n", report.examples, report.biases, report.steps,
                report.seconds);
    if (!bad && (size_t)epochs_seen != report.epochs) {
        fprintf(stderr, "learn: %d epochs were told of, not %zu\n", epochs_seen, report.epochs);
        bad = 1;
    }
    bad = bad || failed("save", trimtab_model_save(model, out, 0));
    bad = bad || answer(model, text);
    trimtab_model_free(model);
    return bad;
}

/* The file by itself gives the model back. */
static int reopen(const trimtab_base *base, const char *path, const char *text) {
    trimtab_model *model = NULL;
    int bad = failed("open", trimtab_model_open(base, path, NULL, &model)) || answer(model, text);
    trimtab_model_free(model);
    return bad;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: learn BASE DATA.tsv OUT.bias.safetensors TEXT\n");
        return 2;
    }
    trimtab_base *base = NULL;
    trimtab_examples *examples = NULL;
    int bad = failed("base", trimtab_base_open(argv[1], &base)) || failed("list", trimtab_examples_new(&examples)) ||
              failed("data", trimtab_examples_read(examples, argv[2], "classify")) ||
              learn(base, examples, argv[3], argv[4]) || reopen(base, argv[3], argv[4]);
    /* In any order; NULL does nothing. */
    trimtab_base_free(base);
    trimtab_examples_free(examples);
    return bad;
}
