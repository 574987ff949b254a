/* trimtab: fine-tunes the biases of a frozen int8 BERT on the device that uses it.
 *
 *     trimtab_base *base;
 *     if (trimtab_base_open("minilm.q8.safetensors", &base) != TRIMTAB_STATUS_OK)
 *         fprintf(stderr, "%s\n", trimtab_last_error());
 *
 * examples/c/learn.c is a whole program.
 *
 * Arguments. Text and paths are UTF-8 and end in a NUL; the library copies what it keeps. NULL is an error where
 * a function does not say what it means, never a crash. A pointer that is not NULL must be valid for what it is used
 * for: the library cannot tell a freed handle from one in use.
 *
 * Errors. Most functions return a trimtab_status; trimtab_last_error tells more. A call that fails changes nothing but
 * its out parameter, which becomes NULL where it is a handle. Nothing is ever thrown or unwound out of the library.
 *
 * Lifetimes. Who gets a handle frees it, once, by the function of its name. A handle keeps what it needs of others:
 * they may be freed in any order.
 *
 * Threads. Every function may be called from any thread, on the same handles at once: a model predicts on many threads
 * while another trains it. Only what frees a handle must be the last call with it.
 */

#ifndef TRIMTAB_H
#define TRIMTAB_H

/* Made by cbindgen of src/capi: change it there. */

#include <stddef.h>
#include <stdint.h>

// How a call ended. 0 is success; `trimtab_last_error` has the message of any other.
enum trimtab_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // It did what was asked.
  TRIMTAB_STATUS_OK = 0,
  // A file could not be read, written or mapped.
  TRIMTAB_STATUS_IO = 1,
  // A file is not what it claims to be, or needs something that this version does not have.
  TRIMTAB_STATUS_FORMAT = 2,
  // Examples that cannot be used.
  TRIMTAB_STATUS_DATA = 3,
  // A bias file of another base.
  TRIMTAB_STATUS_WRONG_BASE = 4,
  // An argument that makes no sense: NULL, text that is not UTF-8, a setting out of range.
  TRIMTAB_STATUS_ARGUMENT = 5,
  // The loss or a gradient became infinite or no number; try a lower learning rate.
  TRIMTAB_STATUS_DIVERGED = 6,
  // The progress callback cancelled the run.
  TRIMTAB_STATUS_CANCELLED = 7,
  // A bug in trimtab.
  TRIMTAB_STATUS_INTERNAL = 8,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum trimtab_status trimtab_status;
#else
typedef int32_t trimtab_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What a progress callback is told of.
enum trimtab_event
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // The first step is next; `scores` are those of a head alone, fitted to the frozen encoder.
  TRIMTAB_EVENT_BEGIN = 0,
  // A step is done.
  TRIMTAB_EVENT_STEP = 1,
  // An epoch is done; `scores` are those of the model on what is held out.
  TRIMTAB_EVENT_EPOCH = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum trimtab_event trimtab_event;
#else
typedef int32_t trimtab_event;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How much work a run spends on choosing, and on telling how good its result is.
enum trimtab_effort
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Cross-validates what it trains on three folds: about three times the steps of `Quick`.
  TRIMTAB_EFFORT_NORMAL = 0,
  // Trains once; without held-out examples there are no scores but a linear probe's.
  TRIMTAB_EFFORT_QUICK = 1,
  // Tries several settings on five folds: about ten times the steps of `Quick`.
  TRIMTAB_EFFORT_THOROUGH = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum trimtab_effort trimtab_effort;
#else
typedef int32_t trimtab_effort;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What a progress callback returns.
enum trimtab_reply
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Go on.
  TRIMTAB_REPLY_CONTINUE = 0,
  // End, and use what was learned so far: the best epoch, or the last step where none is done yet.
  TRIMTAB_REPLY_STOP = 1,
  // End, and leave the model as it was; the call returns `TRIMTAB_STATUS_CANCELLED`. So does any other number.
  TRIMTAB_REPLY_CANCEL = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum trimtab_reply trimtab_reply;
#else
typedef int32_t trimtab_reply;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The frozen part of a model, mapped from its file; made by `trimtab quantize`.
//
// Any number of models share one; each keeps what it needs of it, so a base may be freed before they are.
typedef struct trimtab_base trimtab_base;

// Texts with their labels, to learn from or to score on. A run takes a copy when it begins, so that examples may be
// added meanwhile.
typedef struct trimtab_examples trimtab_examples;

// A base with biases and a head of its own: a user's model.
//
// Threads may predict with it while another trains it, swaps its biases or saves them: each call takes the whole set of
// biases that is there when it begins.
typedef struct trimtab_model trimtab_model;

// The answer to one text. It never changes, and outlives its model.
typedef struct trimtab_prediction trimtab_prediction;

// How a model runs. All zero, or NULL in its place, for the defaults.
typedef struct {
  // Longest text in tokens, the rest is cut off; 0 takes 128. A bias file brings its own.
  size_t max_len;
  // Threads for one call; 0 takes one for each performance core. No result depends on it.
  size_t threads;
} trimtab_options;

// How well answers agree with the truth. Scores that a task does not have are NaN.
typedef struct {
  // Number of examples they are of; 0 where nothing was scored.
  size_t examples;
  // Mean loss.
  double loss;
  // The score that tells most of the task, the higher the better; by it the best epoch is kept.
  double main;
  // Share of right answers (classify); of texts with every label right (multilabel); of tokens (tag); of hidden
  // words (mlm).
  double accuracy;
  // F1 of the second of two labels (classify), or of words (qa).
  double f1;
  // Mean over the labels of their F1 (classify, multilabel).
  double macro_f1;
  // Matthews correlation (classify).
  double mcc;
  // F1 over all pairs of a text and a label (multilabel).
  double micro_f1;
  // Pearson's correlation (regress).
  double pearson;
  // Spearman's rank correlation (regress).
  double spearman;
  // F1 of spans of BIO tags (tag).
  double span_f1;
  // Share of answers that are right but for articles, punctuation, spaces and case (qa).
  double exact_match;
  // Share of texts to which their own partner is the nearest of all (contrastive).
  double recall_at_1;
  // Mean of 1 / rank of their own partner (contrastive).
  double mrr;
  // e to the loss, the lower the better (mlm).
  double perplexity;
} trimtab_scores;

// How to train. All zero, or NULL in its place, chooses from the examples as `trimtab train` without flags does: the
// same examples give the same bias file, byte for byte.
typedef struct {
  // Decides the order of the examples, the head's first values and the dropout.
  uint64_t seed;
  // Passes over the examples; 0 chooses by their number.
  size_t epochs;
  // Texts a step; 0 chooses by their number.
  size_t batch;
  // Peak learning rate; 0 chooses by their number and that of labels.
  double lr;
  // Share of the examples to score epochs on instead of learning from it, if none are given for that; 0 or below learns
  // from all of them, and scores by cross-validation.
  double hold_out;
  // Early-stopping patience in epochs, with held-out examples; 0 is 5 if `epochs` is 0, else never.
  size_t patience;
  // Which biases, such as "q,m2"; NULL for all. `trimtab train --help` has them.
  const char *terms;
  // The first layer that is trained.
  size_t layers_from;
  // The layer behind the last one that is trained; 0 for all layers from the first on.
  size_t layers_to;
  // Bias file of this base, of whatever task, whose biases training begins with; NULL begins with the base's.
  const char *start;
  // Most bytes for the whole process, kept by smaller steps of work; 0 for no limit. No result depends on it.
  size_t memory;
  // A `trimtab_effort`: how much work to spend on choosing and scoring.
  int32_t effort;
} trimtab_train_options;

// Where a run is.
typedef struct {
  // What happened.
  trimtab_event event;
  // Steps done.
  size_t step;
  // Steps of the whole run; 0 before the first.
  size_t steps;
  // Epochs done.
  size_t epoch;
  // Epochs of the whole run.
  size_t epochs;
  // Loss of the step, mean loss of the epoch; NaN before the first.
  double loss;
  // Scores on what is held out; `examples` is 0 where there are none.
  trimtab_scores scores;
} trimtab_progress;

// Called while a model trains, on the thread that called `trimtab_model_train`, with its `user`; returns a
// `trimtab_reply`. `progress` is valid during the call. It must return: no longjmp, no C++ exception out of it. It may
// use any function of this library, but for freeing what the run uses.
typedef int32_t (*trimtab_progress_fn)(const trimtab_progress *progress, void *user);

// How a run ended.
typedef struct {
  // Examples learned from.
  size_t examples;
  // Epochs done.
  size_t epochs;
  // The epoch that the model has now, from 1; 0 where none was done, or none better than the head alone.
  size_t kept;
  // Steps done.
  size_t steps;
  // Trained values of biases.
  size_t biases;
  // Seconds spent training, without scoring.
  double seconds;
  // 1 where the callback stopped it, else 0.
  int32_t stopped;
  // Scores of what is kept on what was held out; `examples` is 0 where nothing was.
  trimtab_scores scores;
  // Scores of a head alone on the same; what training the biases must beat.
  trimtab_scores head_alone;
} trimtab_report;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The message of the last call of this thread that failed; "" where none did. Never NULL.
//
// It stays until another call of this thread fails or the thread ends: copy what is to be kept.
const char *trimtab_last_error(void);

// The library's version, such as "0.1.0". A constant. Until 1.0 a new minor version may change this interface.
const char *trimtab_version(void);

// Opens a base file, which is mapped and must not be changed while it is in use.
//
// `base` gets the handle, to be freed by `trimtab_base_free`, or NULL where this fails.
trimtab_status trimtab_base_open(const char *path, trimtab_base **base);

// A base from the `length` bytes of its file, which are copied: for an app whose base lies in an archive. A file that can
// be mapped takes less memory (`trimtab_base_open`).
//
// `base` gets the handle, to be freed by `trimtab_base_free`, or NULL where this fails.
trimtab_status trimtab_base_of_bytes(const uint8_t *bytes,
                                     size_t length,
                                     trimtab_base **base);

// Floats of a text's vector, for `trimtab_model_embed` of a model that pools as the base does; 0 for NULL.
size_t trimtab_base_width(const trimtab_base *base);

// Frees a base; NULL does nothing. Models that were made of it stay.
void trimtab_base_free(trimtab_base *base);

// An empty list. `examples` gets the handle, to be freed by `trimtab_examples_free`.
trimtab_status trimtab_examples_new(trimtab_examples **examples);

// Adds an example, of which the list keeps a copy.
//
// `text_b` is the second text of a pair, or NULL. `label` is a label's name; for multilabel names between commas, for
// regress a number, for tag as many tags as `text` has words, both between spaces; for contrastive and mlm it may be
// NULL. Whether it suits the task, training tells. Questions (qa) come from files only.
trimtab_status trimtab_examples_add(trimtab_examples *examples,
                                    const char *text,
                                    const char *text_b,
                                    const char *label);

// Adds the examples of a file as `trimtab train --data` reads it: .tsv, .csv or .jsonl; .conll for tag, .json for qa,
// for mlm also .txt. `task` is the one they are for. Adds all of them, or none where this fails.
trimtab_status trimtab_examples_read(trimtab_examples *examples,
                                     const char *path,
                                     const char *task);

// How many there are; 0 for NULL.
size_t trimtab_examples_count(const trimtab_examples *examples);

// Removes all of them.
trimtab_status trimtab_examples_clear(trimtab_examples *examples);

// Frees a list; NULL does nothing.
void trimtab_examples_free(trimtab_examples *examples);

// A model for a task: "classify", "multilabel", "regress", "tag", "qa", "contrastive" or "mlm".
//
// `labels` are the `count` names that a classify, multilabel or tag model tells apart, in the order of their
// probabilities; with NULL they are taken from the examples when it is trained (sorted, as on the command line), and
// until then it answers nothing. Other tasks have none. An untrained contrastive model embeds as the base does.
// `model` gets the handle, to be freed by `trimtab_model_free`.
trimtab_status trimtab_model_new(const trimtab_base *base,
                                 const char *task,
                                 const char *const *labels,
                                 size_t count,
                                 const trimtab_options *options,
                                 trimtab_model **model);

// A model from a bias file, which must have been trained on this base. Its task is the file's.
//
// `model` gets the handle, to be freed by `trimtab_model_free`.
trimtab_status trimtab_model_open(const trimtab_base *base,
                                  const char *path,
                                  const trimtab_options *options,
                                  trimtab_model **model);

// The answer to a text, or to a pair: `text_b` is NULL for one text; for qa `text` is the question and `text_b` the
// text with its answer.
//
// Many threads at once share the threads of the model's options. `prediction` gets the handle, to be freed by
// `trimtab_prediction_free`.
trimtab_status trimtab_model_predict(const trimtab_model *model,
                                     const char *text,
                                     const char *text_b,
                                     trimtab_prediction **prediction);

// The vector of a text: `width` floats at `vector`, as many as `trimtab_base_width` tells.
//
// Errors: another width; a task that reads every token by itself (tag, qa, mlm).
trimtab_status trimtab_model_embed(const trimtab_model *model,
                                   const char *text,
                                   float *vector,
                                   size_t width);

// Scores of its answers to labelled examples, written to `scores`.
trimtab_status trimtab_model_evaluate(const trimtab_model *model,
                                      const trimtab_examples *examples,
                                      trimtab_scores *scores);

// Replaces the model's biases, head and labels by those of a bias file of its task and base, at once: a call that runs
// meanwhile uses the old set or the new one, never some of each. Where this fails the old set stays.
trimtab_status trimtab_model_swap(trimtab_model *model,
                                  const char *path);

// The same with the biases that `other` has now, a model of the same task and base. They are shared, not copied: this
// takes no time, and what later happens to `other` does not change `model`.
trimtab_status trimtab_model_share(trimtab_model *model,
                                   const trimtab_model *other);

// Writes the biases and the head to a bias file: beside `path`, synced, then renamed over it, so that no half of a file is
// ever there. `half` that is not 0 writes f16: half the size.
trimtab_status trimtab_model_save(const trimtab_model *model,
                                  const char *path,
                                  int32_t half);

// Frees a model; NULL does nothing. Predictions that it made stay.
void trimtab_model_free(trimtab_model *model);

// Trains the model on `examples`: head and biases begin anew, so that a model learns the same from the same examples
// whatever it learned before. When all is done the new biases replace the old ones at once; until then other threads get
// answers from the old ones. Where this fails or is cancelled, the old ones stay.
//
// `held_out` are examples to score each epoch on, or NULL (see `trimtab_train_options`); `options`, `progress` and
// `report` may be NULL. Blocks until the end.
trimtab_status trimtab_model_train(trimtab_model *model,
                                   const trimtab_examples *examples,
                                   const trimtab_examples *held_out,
                                   const trimtab_train_options *options,
                                   trimtab_progress_fn progress,
                                   void *user,
                                   trimtab_report *report);

// The answer as text: the label; labels between commas; tags or words between spaces; the number; the part of the text.
//
// Valid until the prediction is freed; NULL for NULL.
const char *trimtab_prediction_text(const trimtab_prediction *prediction);

// The answer as the JSON object that `trimtab predict --json` prints, without the text.
//
// Valid until the prediction is freed; NULL for NULL.
const char *trimtab_prediction_json(const trimtab_prediction *prediction);

// The number that a regress model answers; NaN for other tasks and for NULL.
double trimtab_prediction_value(const trimtab_prediction *prediction);

// How many labels have a probability: all that the model knows, in its order; of a tag model the words of the text, which is
// split at white space and punctuation.
// 0 for other tasks and for NULL.
size_t trimtab_prediction_count(const trimtab_prediction *prediction);

// Label `index`; of a tag model the tag of word `index`. Valid until the prediction is freed; NULL where there is none.
const char *trimtab_prediction_label(const trimtab_prediction *prediction,
                                     size_t index);

// The probability of label `index`, or of the tag of word `index`; NaN where there is none.
double trimtab_prediction_probability(const trimtab_prediction *prediction, size_t index);

// Frees a prediction; NULL does nothing.
void trimtab_prediction_free(trimtab_prediction *prediction);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TRIMTAB_H */
