/** What cross/android/test runs: the wrapper against the library, in the bits of the command line. */
package dev.trimtab

import java.io.File
import java.util.concurrent.atomic.AtomicInteger
import kotlin.concurrent.thread
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.runBlocking

private inline fun <reified E : Throwable> fails(words: String, body: () -> Unit): E {
    try {
        body()
    } catch (e: Throwable) {
        check(e is E && e.message.orEmpty().contains(words)) { "$e, not $words" }
        return e
    }
    error("did not fail: $words")
}

private val few = TrainOptions(seed = 7, epochs = 2)
/** Nothing is held out, so the last epoch is kept, which differs from the one before. */
private val one = few.copy(epochs = 1, holdOut = -1.0)

fun main(args: Array<String>) {
    val (basePath, data, cliBias, out) = args
    check(fails<TrimtabException>("nowhere: ") { Base("nowhere") }.status == 1)
    fails<TrimtabException>("(bytes)") { Base(ByteArray(0)) }
    val base = Base(File(basePath).readBytes())
    Base(basePath).use { check(it.width == base.width) }
    val examples = Examples().apply { read(data) }
    val model = Model(base)
    fails<TrimtabException>("no labels yet") { model.predict("x") }

    // the command line's bytes, and its own thread's callback
    val here = Thread.currentThread()
    var epochs = 0
    val report = model.trainBlocking(examples, options = few) {
        check(Thread.currentThread() == here)
        if (it.event == Progress.Event.EPOCH) epochs += 1
        Reply.CONTINUE
    }
    check(epochs == 2 && report.epochs == 2 && report.biases > 0 && report.scores.examples == 320 && !report.stopped)
    check(model.trainBlocking(examples, options = few.copy(holdOut = -1.0)).kept == 2)
    model.save(out)
    check(File(out).readBytes().contentEquals(File(cliBias).readBytes())) { "another bias file than the command line's" }

    // answers, of text beyond the first plane too
    val answer = Model.open(base, out).use { it.predict("Ваша посылка 📦 today") }
    check(answer.labels == listOf("family", "later", "mute", "now", "today"))
    check(Math.abs(answer.probabilities.sum() - 1) < 1e-9 && answer.text in answer.labels)
    check(answer.json.contains("\"label\":\"${answer.text}\""))
    val scores = model.evaluate(examples)
    check(scores.examples == 320 && scores.main == scores["accuracy"] && scores["pearson"].isNaN())
    check(Model(base, "contrastive").use { it.embed("📦") }.let { v -> v.size == base.width && v.any { it != 0f } })

    // text that is labelled by hand, in any script
    Model(base, labels = listOf("да", "нет 🙅")).use { named ->
        val some = Examples().apply { repeat(4) { i -> add("word $i", label = if (i < 2) "да" else "нет 🙅") } }
        named.trainBlocking(some, options = few)
        check(named.predict("word").labels == listOf("да", "нет 🙅"))
        check(named.predict("cut \u0000 here").text in named.predict("word").labels)
        some.close()
    }

    // an exception of the callback comes out, a cancelled coroutine ends; the model stays
    model.trainBlocking(examples, options = one.copy(epochs = 2))
    val before = model.predict("Choir tonight").json
    fails<IllegalStateException>("of the app") { model.trainBlocking(examples, options = few) { error("of the app") } }
    fails<CancellationException>("") {
        runBlocking {
            val steps = AtomicInteger()
            lateinit var stop: () -> Unit
            val run = async(Dispatchers.Default) {
                model.train(examples, options = few) { if (steps.incrementAndGet() == 3) stop() }
            }
            stop = { run.cancel() }
            run.await()
        }
    }
    check(model.predict("Choir tonight").json == before)
    check(runBlocking { model.train(examples, options = one) }.epochs == 1)
    check(model.predict("Choir tonight").json != before)

    // threads predict while one trains and swaps
    val after = model.predict("Choir tonight").json
    model.swap(out)
    val answers = setOf(after, model.predict("Choir tonight").json)
    val strange = AtomicInteger()
    val askers = List(4) { thread { repeat(50) { if (model.predict("Choir tonight").json !in answers) strange.incrementAndGet() } } }
    repeat(5) {
        model.trainBlocking(examples, options = one)
        model.swap(out)
    }
    askers.forEach { it.join() }
    check(strange.get() == 0) { "answers of no whole set" }

    // ends in any order, twice, and not while in use
    base.close()
    fails<IllegalStateException>("in use") { model.trainBlocking(examples, options = few) { model.close(); Reply.STOP } }
    model.close()
    model.close()
    fails<IllegalStateException>("Model is closed") { model.predict("x") }
    examples.close()
    println("passed on ${System.getProperty("java.vm.name")} ${System.getProperty("java.version")}")
}
