/** trimtab on the JVM: `include/trimtab.h`, which says what each call does, with Kotlin's manners. */
package dev.trimtab

import java.util.concurrent.locks.ReentrantReadWriteLock
import kotlin.concurrent.read
import kotlin.concurrent.write
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.isActive
import kotlinx.coroutines.withContext

/** A call failed; [status] is a `trimtab_status`, the message says what to mend. */
class TrimtabException(val status: Int, message: ByteArray) : RuntimeException(String(message, Charsets.UTF_8)) {
    companion object {
        const val CANCELLED = 7
    }
}

/** A handle of the library. It may be used by many threads; [close] waits for the calls that run. */
abstract class Handle internal constructor(private var pointer: Long) : AutoCloseable {
    private val lock = ReentrantReadWriteLock()

    internal fun <R> call(body: (Long) -> R): R = lock.read {
        check(pointer != 0L) { "${javaClass.simpleName} is closed" }
        body(pointer)
    }

    internal abstract fun free(pointer: Long)

    /** Frees it; a second time does nothing. Not from a progress callback of the same model. */
    override fun close() {
        check(lock.readHoldCount == 0) { "${javaClass.simpleName} is in use by this thread" }
        lock.write {
            if (pointer != 0L) free(pointer)
            pointer = 0L
        }
    }
}

/** The frozen part of a model, shared by any number of models. May be closed before they are. */
class Base private constructor(pointer: Long) : Handle(pointer) {
    /** Maps a file. */
    constructor(path: String) : this(Native.baseOpen(path.utf8()))

    /** Copies a file's bytes, of an asset say. What can be mapped takes less memory. */
    constructor(bytes: ByteArray) : this(Native.baseOfBytes(bytes))

    /** Floats of a text's vector. */
    val width: Int get() = call { Native.baseWidth(it) }

    override fun free(pointer: Long) = Native.baseFree(pointer)
}

/** Texts with their labels. */
class Examples : Handle(Native.examplesNew()) {
    val count: Int get() = call { Native.examplesCount(it) }

    fun add(text: String, label: String? = null, textB: String? = null) =
        call { Native.examplesAdd(it, text.utf8(), textB?.utf8(), label?.utf8()) }

    /** Adds the examples of a file, as `trimtab train --data` reads it. */
    fun read(path: String, task: String = "classify") = call { Native.examplesRead(it, path.utf8(), task.utf8()) }

    fun clear() = call { Native.examplesClear(it) }

    override fun free(pointer: Long) = Native.examplesFree(pointer)
}

/** The answer to a text: as text, as `trimtab predict --json` without the text, and each label's probability. */
class Prediction(val text: String, val json: String, val labels: List<String>, val probabilities: DoubleArray)

/** Scores; NaN for those that a task does not have. */
class Scores internal constructor(private val numbers: DoubleArray, private val from: Int = 0) {
    /** How many examples they are of; 0 where nothing was scored. */
    val examples: Int get() = numbers[from].toInt()
    val loss: Double get() = numbers[from + 1]
    /** The one that tells most of the task, the higher the better. */
    val main: Double get() = numbers[from + 2]

    /** A score by its name in the header, such as "macro_f1". */
    operator fun get(name: String): Double {
        val at = NAMES.indexOf(name)
        require(at >= 0) { "no score $name; there are $NAMES" }
        return numbers[from + at]
    }

    companion object {
        /** In the order of `trimtab_scores`. */
        val NAMES = listOf(
            "examples", "loss", "main", "accuracy", "f1", "macro_f1", "mcc", "micro_f1", "pearson", "spearman",
            "span_f1", "exact_match", "recall_at_1", "mrr", "perplexity"
        )
    }
}

/** As `trimtab_train_options`: what is not given is chosen from the examples. */
data class TrainOptions(
    val seed: Long = 0, val epochs: Long = 0, val batch: Long = 0, val lr: Double = 0.0, val holdOut: Double = 0.0,
    val patience: Long = 0, val terms: String? = null, val layersFrom: Long = 0, val layersTo: Long = 0,
    val start: String? = null, val memory: Long = 0, val effort: Effort = Effort.NORMAL
)

/** How much work a run spends on choosing and scoring, as `trimtab_effort`. */
enum class Effort { NORMAL, QUICK, THOROUGH }

/** Where a run is, as `trimtab_progress`. */
class Progress internal constructor(private val n: DoubleArray) {
    enum class Event { BEGIN, STEP, EPOCH }

    val event: Event get() = Event.values()[n[0].toInt()]
    val step: Int get() = n[1].toInt()
    val steps: Int get() = n[2].toInt()
    val epoch: Int get() = n[3].toInt()
    val epochs: Int get() = n[4].toInt()
    val loss: Double get() = n[5]
    val scores: Scores get() = Scores(n, 6)
}

/** What a progress callback answers: go on; end and use what was learned; end and leave the model as it was. */
enum class Reply { CONTINUE, STOP, CANCEL }

/** How a run ended, as `trimtab_report`. */
class Report internal constructor(private val n: DoubleArray) {
    val examples: Int get() = n[0].toInt()
    val epochs: Int get() = n[1].toInt()
    val kept: Int get() = n[2].toInt()
    val steps: Int get() = n[3].toInt()
    val biases: Int get() = n[4].toInt()
    val seconds: Double get() = n[5]
    val stopped: Boolean get() = n[6] != 0.0
    val scores: Scores get() = Scores(n, 7)
    val headAlone: Scores get() = Scores(n, 7 + Scores.NAMES.size)
}

/** A user's model. Threads may predict while another trains it. */
class Model private constructor(pointer: Long, private val width: Int) : Handle(pointer) {
    /** A new one; labels that are not named are taken from the examples when it is trained. */
    constructor(
        base: Base, task: String = "classify", labels: List<String>? = null, maxLen: Int = 0, threads: Int = 0
    ) : this(
        base.call { b ->
            Native.modelNew(b, task.utf8(), labels?.map { it.utf8() }?.toTypedArray(), maxLen, threads)
        },
        base.width
    )

    fun predict(text: String, textB: String? = null): Prediction {
        val found = call { Native.modelPredict(it, text.utf8(), textB?.utf8()) }
        @Suppress("UNCHECKED_CAST")
        val labels = (found[2] as Array<ByteArray>).map { String(it, Charsets.UTF_8) }
        fun string(at: Int) = String(found[at] as ByteArray, Charsets.UTF_8)
        return Prediction(string(0), string(1), labels, found[3] as DoubleArray)
    }

    /** The text's vector. */
    fun embed(text: String): FloatArray =
        FloatArray(width).also { vector -> call { Native.modelEmbed(it, text.utf8(), vector) } }

    fun evaluate(examples: Examples): Scores =
        Scores(call { model -> examples.call { Native.modelEvaluate(model, it) } })

    /** Trains on this thread, on which [onProgress] is called too. What that throws cancels the run and comes out of here. */
    fun trainBlocking(
        examples: Examples, heldOut: Examples? = null, options: TrainOptions = TrainOptions(),
        onProgress: (Progress) -> Reply = { Reply.CONTINUE }
    ): Report {
        val o = options
        val whole = longArrayOf(
            o.seed, o.epochs, o.batch, o.patience, o.layersFrom, o.layersTo, o.memory, o.effort.ordinal.toLong()
        )
        val real = doubleArrayOf(o.lr, o.holdOut)
        val watch = object : Native.Watch {
            override fun onProgress(numbers: DoubleArray): Int = onProgress(Progress(numbers)).ordinal
        }
        fun train(model: Long, learned: Long, held: Long) =
            Native.modelTrain(model, learned, held, whole, real, o.terms?.utf8(), o.start?.utf8(), watch)
        return Report(call { model ->
            examples.call { learned ->
                if (heldOut == null) train(model, learned, 0) else heldOut.call { train(model, learned, it) }
            }
        })
    }

    /** Trains away from the caller's thread. Cancelling the coroutine ends the run after its step; the model stays as it was. */
    suspend fun train(
        examples: Examples, heldOut: Examples? = null, options: TrainOptions = TrainOptions(),
        onProgress: (Progress) -> Unit = {}
    ): Report = withContext(Dispatchers.IO) {
        try {
            trainBlocking(examples, heldOut, options) {
                onProgress(it)
                if (isActive) Reply.CONTINUE else Reply.CANCEL
            }
        } catch (e: TrimtabException) {
            throw if (e.status == TrimtabException.CANCELLED) CancellationException(e.message) else e
        }
    }

    /** Replaces the biases by those of a file, at once. */
    fun swap(path: String) = call { Native.modelSwap(it, path.utf8()) }

    /** Replaces the biases by those that [other] has now. */
    fun share(other: Model) = call { model -> other.call { Native.modelShare(model, it) } }

    fun save(path: String, half: Boolean = false) = call { Native.modelSave(it, path.utf8(), half) }

    override fun free(pointer: Long) = Native.modelFree(pointer)

    companion object {
        /** One from a bias file of this base. */
        fun open(base: Base, path: String, threads: Int = 0) =
            Model(base.call { Native.modelOpen(it, path.utf8(), threads) }, base.width)
    }
}

/** The library's text is UTF-8 up to the first NUL. JNI's own strings are not: so text crosses as bytes. */
internal fun String.utf8(): ByteArray = replace('\u0000', '\uFFFD').toByteArray(Charsets.UTF_8)

/** `trimtab_jni.c`, function by function. */
internal object Native {
    init {
        System.loadLibrary("trimtab_jni")
    }

    interface Watch {
        fun onProgress(numbers: DoubleArray): Int
    }

    @JvmStatic external fun baseOpen(path: ByteArray): Long
    @JvmStatic external fun baseOfBytes(bytes: ByteArray): Long
    @JvmStatic external fun baseWidth(base: Long): Int
    @JvmStatic external fun baseFree(base: Long)
    @JvmStatic external fun examplesNew(): Long
    @JvmStatic external fun examplesAdd(examples: Long, text: ByteArray, textB: ByteArray?, label: ByteArray?)
    @JvmStatic external fun examplesRead(examples: Long, path: ByteArray, task: ByteArray)
    @JvmStatic external fun examplesCount(examples: Long): Int
    @JvmStatic external fun examplesClear(examples: Long)
    @JvmStatic external fun examplesFree(examples: Long)
    @JvmStatic external fun modelNew(
        base: Long, task: ByteArray, labels: Array<ByteArray>?, maxLen: Int, threads: Int
    ): Long
    @JvmStatic external fun modelOpen(base: Long, path: ByteArray, threads: Int): Long
    @JvmStatic external fun modelPredict(model: Long, text: ByteArray, textB: ByteArray?): Array<Any>
    @JvmStatic external fun modelEmbed(model: Long, text: ByteArray, vector: FloatArray)
    @JvmStatic external fun modelEvaluate(model: Long, examples: Long): DoubleArray
    @JvmStatic external fun modelTrain(
        model: Long, examples: Long, heldOut: Long, whole: LongArray, real: DoubleArray, terms: ByteArray?,
        start: ByteArray?, watch: Watch
    ): DoubleArray
    @JvmStatic external fun modelSwap(model: Long, path: ByteArray)
    @JvmStatic external fun modelShare(model: Long, other: Long)
    @JvmStatic external fun modelSave(model: Long, path: ByteArray, half: Boolean)
    @JvmStatic external fun modelFree(model: Long)
}
