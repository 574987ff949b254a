/* The natives of dev.trimtab.Native (Trimtab.kt): arrays in, arrays or an exception out. Text crosses as UTF-8 bytes. */
#include <jni.h>
#include <stdlib.h>
#include <string.h>

#include "trimtab.h"

#define NATIVE(type, name) JNIEXPORT type JNICALL Java_dev_trimtab_Native_##name
#define HANDLE(type, value) ((type *)(intptr_t)(value))
/* Numbers that `flatten` writes. Not by sizeof: padding differs where size_t has four bytes. */
enum { SCORES = 15 };

/* A new array of bytes; NULL with an exception pending where there is no memory. */
static jbyteArray bytes(JNIEnv *env, const char *text) {
    const jsize length = (jsize)strlen(text);
    jbyteArray array = (*env)->NewByteArray(env, length);
    if (array != NULL)
        (*env)->SetByteArrayRegion(env, array, 0, length, (const jbyte *)text);
    return array;
}

/* Throws a TrimtabException for a call that failed, but where the callback's own exception is pending. 1 where it failed. */
static int failed(JNIEnv *env, trimtab_status status) {
    if (status == TRIMTAB_STATUS_OK)
        return 0;
    if ((*env)->ExceptionCheck(env))
        return 1;
    jbyteArray message = bytes(env, trimtab_last_error());
    jclass class = message == NULL ? NULL : (*env)->FindClass(env, "dev/trimtab/TrimtabException");
    jmethodID make = class == NULL ? NULL : (*env)->GetMethodID(env, class, "<init>", "(I[B)V");
    jobject exception = make == NULL ? NULL : (*env)->NewObject(env, class, make, (jint)status, message);
    if (exception != NULL)
        (*env)->Throw(env, (jthrowable)exception);
    return 1;
}

/* A copy that ends in a NUL, to be freed; NULL for NULL. Out of memory is NULL too, which the library refuses. */
static char *text(JNIEnv *env, jbyteArray array) {
    if (array == NULL)
        return NULL;
    const jsize length = (*env)->GetArrayLength(env, array);
    char *copy = malloc((size_t)length + 1);
    if (copy != NULL) {
        (*env)->GetByteArrayRegion(env, array, 0, length, (jbyte *)copy);
        copy[length] = '\0';
    }
    return copy;
}

static jdoubleArray doubles(JNIEnv *env, const jdouble *numbers, size_t count) {
    jdoubleArray array = (*env)->NewDoubleArray(env, (jsize)count);
    if (array != NULL)
        (*env)->SetDoubleArrayRegion(env, array, 0, (jsize)count, numbers);
    return array;
}

/* In the order of the header, the number of examples first. */
static void flatten(const trimtab_scores *s, jdouble *to) {
    const jdouble all[] = {(jdouble)s->examples, s->loss,     s->main,    s->accuracy,    s->f1,
                           s->macro_f1,          s->mcc,      s->micro_f1, s->pearson,    s->spearman,
                           s->span_f1,           s->exact_match, s->recall_at_1, s->mrr,  s->perplexity};
    _Static_assert(sizeof all / sizeof *all == SCORES, "SCORES is the number of scores");
    memcpy(to, all, sizeof all);
}

NATIVE(jlong, baseOpen)(JNIEnv *env, jclass class, jbyteArray path) {
    (void)class;
    trimtab_base *base = NULL;
    char *p = text(env, path);
    failed(env, trimtab_base_open(p, &base));
    free(p);
    return (jlong)(intptr_t)base;
}

NATIVE(jlong, baseOfBytes)(JNIEnv *env, jclass class, jbyteArray bytes) {
    (void)class;
    trimtab_base *base = NULL;
    jbyte *all = (*env)->GetByteArrayElements(env, bytes, NULL);
    if (all == NULL)
        return 0; /* an OutOfMemoryError is on its way */
    failed(env, trimtab_base_of_bytes((const uint8_t *)all, (size_t)(*env)->GetArrayLength(env, bytes), &base));
    (*env)->ReleaseByteArrayElements(env, bytes, all, JNI_ABORT);
    return (jlong)(intptr_t)base;
}

NATIVE(jint, baseWidth)(JNIEnv *env, jclass class, jlong base) {
    (void)env, (void)class;
    return (jint)trimtab_base_width(HANDLE(trimtab_base, base));
}

NATIVE(void, baseFree)(JNIEnv *env, jclass class, jlong base) {
    (void)env, (void)class;
    trimtab_base_free(HANDLE(trimtab_base, base));
}

NATIVE(jlong, examplesNew)(JNIEnv *env, jclass class) {
    (void)class;
    trimtab_examples *examples = NULL;
    failed(env, trimtab_examples_new(&examples));
    return (jlong)(intptr_t)examples;
}

NATIVE(void, examplesAdd)(JNIEnv *env, jclass class, jlong examples, jbyteArray a, jbyteArray b, jbyteArray label) {
    (void)class;
    char *texts[] = {text(env, a), text(env, b), text(env, label)};
    failed(env, trimtab_examples_add(HANDLE(trimtab_examples, examples), texts[0], texts[1], texts[2]));
    for (int i = 0; i < 3; i++)
        free(texts[i]);
}

NATIVE(void, examplesRead)(JNIEnv *env, jclass class, jlong examples, jbyteArray path, jbyteArray task) {
    (void)class;
    char *p = text(env, path), *t = text(env, task);
    failed(env, trimtab_examples_read(HANDLE(trimtab_examples, examples), p, t));
    free(p), free(t);
}

NATIVE(jint, examplesCount)(JNIEnv *env, jclass class, jlong examples) {
    (void)env, (void)class;
    return (jint)trimtab_examples_count(HANDLE(trimtab_examples, examples));
}

NATIVE(void, examplesClear)(JNIEnv *env, jclass class, jlong examples) {
    (void)class;
    failed(env, trimtab_examples_clear(HANDLE(trimtab_examples, examples)));
}

NATIVE(void, examplesFree)(JNIEnv *env, jclass class, jlong examples) {
    (void)env, (void)class;
    trimtab_examples_free(HANDLE(trimtab_examples, examples));
}

NATIVE(jlong, modelNew)(JNIEnv *env, jclass class, jlong base, jbyteArray task, jobjectArray labels, jint max_len,
                        jint threads) {
    (void)class;
    const trimtab_options options = {.max_len = (size_t)max_len, .threads = (size_t)threads};
    const jsize count = labels == NULL ? 0 : (*env)->GetArrayLength(env, labels);
    /* One more, so that no labels are not NULL: the library then says that they are too few. */
    char **names = labels == NULL ? NULL : calloc((size_t)count + 1, sizeof *names);
    for (jsize i = 0; names != NULL && i < count; i++) {
        jbyteArray name = (jbyteArray)(*env)->GetObjectArrayElement(env, labels, i);
        names[i] = text(env, name);
        (*env)->DeleteLocalRef(env, name);
    }
    trimtab_model *model = NULL;
    char *t = text(env, task);
    failed(env, trimtab_model_new(HANDLE(trimtab_base, base), t, (const char *const *)names, (size_t)count, &options,
                                  &model));
    for (jsize i = 0; names != NULL && i < count; i++)
        free(names[i]);
    free(names), free(t);
    return (jlong)(intptr_t)model;
}

NATIVE(jlong, modelOpen)(JNIEnv *env, jclass class, jlong base, jbyteArray path, jint threads) {
    (void)class;
    const trimtab_options options = {.max_len = 0, .threads = (size_t)threads};
    trimtab_model *model = NULL;
    char *p = text(env, path);
    failed(env, trimtab_model_open(HANDLE(trimtab_base, base), p, &options, &model));
    free(p);
    return (jlong)(intptr_t)model;
}

/* { text, json, labels, probabilities } */
static jobjectArray answer(JNIEnv *env, const trimtab_prediction *p) {
    const size_t count = trimtab_prediction_count(p);
    jclass any = (*env)->FindClass(env, "java/lang/Object"), some = (*env)->FindClass(env, "[B");
    if (any == NULL || some == NULL)
        return NULL;
    jobjectArray all = (*env)->NewObjectArray(env, 4, any, NULL);
    jobjectArray labels = (*env)->NewObjectArray(env, (jsize)count, some, NULL);
    jdoubleArray probabilities = (*env)->NewDoubleArray(env, (jsize)count);
    jbyteArray words = bytes(env, trimtab_prediction_text(p)), json = bytes(env, trimtab_prediction_json(p));
    if ((*env)->ExceptionCheck(env))
        return NULL;
    for (size_t i = 0; i < count; i++) {
        const jdouble probability = trimtab_prediction_probability(p, i);
        jbyteArray label = bytes(env, trimtab_prediction_label(p, i));
        if (label == NULL)
            return NULL;
        (*env)->SetObjectArrayElement(env, labels, (jsize)i, label);
        (*env)->SetDoubleArrayRegion(env, probabilities, (jsize)i, 1, &probability);
        (*env)->DeleteLocalRef(env, label);
    }
    const jobject parts[] = {words, json, labels, probabilities};
    for (int i = 0; i < 4; i++)
        (*env)->SetObjectArrayElement(env, all, i, parts[i]);
    return all;
}

NATIVE(jobjectArray, modelPredict)(JNIEnv *env, jclass class, jlong model, jbyteArray a, jbyteArray b) {
    (void)class;
    trimtab_prediction *prediction = NULL;
    char *text_a = text(env, a), *text_b = text(env, b);
    const int bad = failed(env, trimtab_model_predict(HANDLE(trimtab_model, model), text_a, text_b, &prediction));
    jobjectArray found = bad ? NULL : answer(env, prediction);
    trimtab_prediction_free(prediction);
    free(text_a), free(text_b);
    return found;
}

NATIVE(void, modelEmbed)(JNIEnv *env, jclass class, jlong model, jbyteArray a, jfloatArray vector) {
    (void)class;
    const jsize width = (*env)->GetArrayLength(env, vector);
    float *floats = calloc((size_t)width + 1, sizeof *floats);
    char *text_a = text(env, a);
    if (!failed(env, trimtab_model_embed(HANDLE(trimtab_model, model), text_a, floats, (size_t)width)))
        (*env)->SetFloatArrayRegion(env, vector, 0, width, floats);
    free(text_a), free(floats);
}

NATIVE(jdoubleArray, modelEvaluate)(JNIEnv *env, jclass class, jlong model, jlong examples) {
    (void)class;
    trimtab_scores scores;
    jdouble numbers[SCORES];
    if (failed(env, trimtab_model_evaluate(HANDLE(trimtab_model, model), HANDLE(trimtab_examples, examples), &scores)))
        return NULL;
    flatten(&scores, numbers);
    return doubles(env, numbers, SCORES);
}

struct watch {
    JNIEnv *env;
    jobject object;
    jmethodID method;
};

/* On the thread that called modelTrain, so its `env` is the right one. */
static int32_t on_progress(const trimtab_progress *p, void *user) {
    const struct watch *watch = user;
    JNIEnv *env = watch->env;
    jdouble numbers[6 + SCORES] = {(jdouble)p->event, (jdouble)p->step,   (jdouble)p->steps,
                                   (jdouble)p->epoch, (jdouble)p->epochs, p->loss};
    flatten(&p->scores, numbers + 6);
    jdoubleArray array = doubles(env, numbers, 6 + SCORES);
    if (array == NULL)
        return TRIMTAB_REPLY_CANCEL;
    const jint reply = (*env)->CallIntMethod(env, watch->object, watch->method, array);
    /* All steps are in one native call, whose local references would pile up. */
    (*env)->DeleteLocalRef(env, array);
    return (*env)->ExceptionCheck(env) ? TRIMTAB_REPLY_CANCEL : reply;
}

NATIVE(jdoubleArray, modelTrain)(JNIEnv *env, jclass class, jlong model, jlong examples, jlong held_out,
                                 jlongArray whole, jdoubleArray real, jbyteArray terms, jbyteArray start,
                                 jobject object) {
    (void)class;
    jlong w[8];
    jdouble r[2];
    (*env)->GetLongArrayRegion(env, whole, 0, 8, w);
    (*env)->GetDoubleArrayRegion(env, real, 0, 2, r);
    struct watch watch = {env, object, NULL};
    watch.method = (*env)->GetMethodID(env, (*env)->GetObjectClass(env, object), "onProgress", "([D)I");
    if (watch.method == NULL || (*env)->ExceptionCheck(env))
        return NULL;
    char *t = text(env, terms), *s = text(env, start);
    const trimtab_train_options options = {
        .seed = (uint64_t)w[0], .epochs = (size_t)w[1], .batch = (size_t)w[2], .patience = (size_t)w[3],
        .layers_from = (size_t)w[4], .layers_to = (size_t)w[5], .memory = (size_t)w[6],
        .effort = (int32_t)w[7],
        .lr = r[0], .hold_out = r[1], .terms = t, .start = s};
    trimtab_report report;
    const trimtab_status status = trimtab_model_train(
        HANDLE(trimtab_model, model), HANDLE(trimtab_examples, examples), HANDLE(trimtab_examples, held_out), &options,
        on_progress, &watch, &report);
    free(t), free(s);
    if (failed(env, status))
        return NULL;
    jdouble numbers[7 + 2 * SCORES] = {(jdouble)report.examples, (jdouble)report.epochs, (jdouble)report.kept,
                                       (jdouble)report.steps,    (jdouble)report.biases, report.seconds,
                                       (jdouble)report.stopped};
    flatten(&report.scores, numbers + 7);
    flatten(&report.head_alone, numbers + 7 + SCORES);
    return doubles(env, numbers, 7 + 2 * SCORES);
}

NATIVE(void, modelSwap)(JNIEnv *env, jclass class, jlong model, jbyteArray path) {
    (void)class;
    char *p = text(env, path);
    failed(env, trimtab_model_swap(HANDLE(trimtab_model, model), p));
    free(p);
}

NATIVE(void, modelShare)(JNIEnv *env, jclass class, jlong model, jlong other) {
    (void)class;
    failed(env, trimtab_model_share(HANDLE(trimtab_model, model), HANDLE(trimtab_model, other)));
}

NATIVE(void, modelSave)(JNIEnv *env, jclass class, jlong model, jbyteArray path, jboolean half) {
    (void)class;
    char *p = text(env, path);
    failed(env, trimtab_model_save(HANDLE(trimtab_model, model), p, half));
    free(p);
}

NATIVE(void, modelFree)(JNIEnv *env, jclass class, jlong model) {
    (void)env, (void)class;
    trimtab_model_free(HANDLE(trimtab_model, model));
}
