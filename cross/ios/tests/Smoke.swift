// What cross/ios/test runs: the wrapper against the library, in the bits of the command line.
import CTrimtab
import Foundation

/// A value that several threads change.
final class Shared<Value>: @unchecked Sendable {
    private let lock = NSLock()
    private var value: Value

    init(_ value: Value) { self.value = value }

    @discardableResult
    func with<R>(_ body: (inout Value) -> R) -> R {
        lock.lock()
        defer { lock.unlock() }
        return body(&value)
    }
}

func fail(_ message: String, line: UInt) -> Never {
    FileHandle.standardError.write(Data("Smoke.swift:\(line): \(message)\n".utf8))
    exit(1)
}

func check(_ condition: Bool, _ message: String = "not so", line: UInt = #line) {
    if !condition { fail(message, line: line) }
}

/// `body` must fail with this status and these words.
func fails(
    _ status: UInt32, _ words: String, line: UInt = #line, _ body: @Sendable () async throws -> Void
) async {
    do {
        try await body()
    } catch let error as TrimtabError {
        check(error.status == status && error.message.contains(words), "\(error)", line: line)
        return check(error.localizedDescription == error.message, line: line)
    } catch {
        fail("\(error), not \(words)", line: line)
    }
    fail("did not fail: \(words)", line: line)
}

func isCancelled(_ run: Task<trimtab_report, any Error>) async -> Bool {
    do {
        _ = try await run.value
        return false
    } catch {
        return error is CancellationError
    }
}

let few = TrainOptions(seed: 7, epochs: 2)
/// Nothing is held out, so the last epoch is kept.
let (one, two) = (TrainOptions(seed: 7, epochs: 1, holdOut: -1), TrainOptions(seed: 7, epochs: 2, holdOut: -1))

@main
struct Smoke {
    static func main() async throws {
        let arguments = CommandLine.arguments
        let (basePath, data, cliBias, out) = (arguments[1], arguments[2], arguments[3], arguments[4])
        await fails(TRIMTAB_STATUS_IO.rawValue, "nowhere: ") { _ = try Base(path: "nowhere") }
        await fails(TRIMTAB_STATUS_FORMAT.rawValue, data) { _ = try Base(path: data) }
        await fails(TRIMTAB_STATUS_FORMAT.rawValue, "(bytes)") { _ = try Base(bytes: Data("no base".utf8)) }
        await fails(TRIMTAB_STATUS_FORMAT.rawValue, "no bytes") { _ = try Base(bytes: Data()) }
        let base = try Base(bytes: Data(contentsOf: URL(fileURLWithPath: basePath)))
        check(try Base(path: basePath).width == base.width && base.width > 0)
        await fails(TRIMTAB_STATUS_FORMAT.rawValue, data) { _ = try Model(base, path: data) }
        let examples = try Examples()
        try examples.read(path: data)
        check(examples.count == 320)
        let model = try Model(base)
        await fails(TRIMTAB_STATUS_ARGUMENT.rawValue, "no labels yet") { _ = try model.predict("x") }

        // what a run tells
        let seen = Shared((begun: 0, steps: 0, epochs: 0, last: trimtab_progress()))
        let report = try await model.train(examples, options: few) { progress in
            seen.with {
                if progress.event == TRIMTAB_EVENT_BEGIN.rawValue { $0.begun += 1 }
                if progress.event == TRIMTAB_EVENT_STEP.rawValue { $0.steps += 1 }
                if progress.event == TRIMTAB_EVENT_EPOCH.rawValue { $0.epochs += 1 }
                $0.last = progress
            }
        }
        seen.with {
            // steps of the three folds, then of the run that is kept
            check($0.begun == 1 && $0.steps > report.steps && $0.epochs == 2, "\($0)")
            check($0.last.step == $0.steps && $0.last.steps >= $0.steps && $0.last.epochs == 2, "\($0)")
        }
        check(report.epochs == 2 && report.biases > 0 && report.scores.examples == 320 && report.stopped == 0)

        // the command line's bytes
        check(try await model.train(examples, options: two).kept == 2)
        try model.save(path: out)
        check(try bytes(out) == bytes(cliBias), "another bias file than the command line's")

        // answers, of text beyond the first plane too
        let labels = ["family", "later", "mute", "now", "today"]
        let answer = try Model(base, path: out).predict("Ваша посылка 📦 today")
        check(answer.labels.map(\.name) == labels && labels.contains(answer.text))
        check(abs(answer.labels.map(\.probability).reduce(0, +) - 1) < 1e-9)
        check(answer.json.contains("\"label\":\"\(answer.text)\""))
        let scores = try model.evaluate(examples)
        check(scores.examples == 320 && scores.main == scores.accuracy && scores.pearson.isNaN)
        let vector = try Model(base, task: "contrastive").embed("📦")
        check(vector.count == base.width && vector.contains { $0 != 0 })

        // options that are text, and examples to score on
        let held = try Examples()
        try held.add("Choir tonight is moved to 8", label: "today")
        let queries = try await model.train(
            examples, heldOut: held, options: TrainOptions(seed: 7, epochs: 1, terms: "q", start: out))
        check(queries.biases > 0 && queries.biases < report.biases && queries.scores.examples == 1, "\(queries)")
        await fails(TRIMTAB_STATUS_ARGUMENT.rawValue, "no-term") {
            try await model.train(examples, options: TrainOptions(terms: "no-term"))
        }
        await fails(TRIMTAB_STATUS_IO.rawValue, "nowhere: ") {
            try await model.train(examples, options: TrainOptions(start: "nowhere"))
        }

        // text that is labelled by hand, in any script
        let named = try Model(base, labels: ["да", "нет 🙅"], threads: 1)
        let some = try Examples()
        for i in 0..<4 { try some.add("word \(i)", label: i < 2 ? "да" : "нет 🙅") }
        try await named.train(some, options: few)
        check(try named.predict("word").labels.map(\.name) == ["да", "нет 🙅"])
        check(try named.predict("cut \0 here").json == named.predict("cut ").json)
        try some.add("without a label")
        await fails(TRIMTAB_STATUS_DATA.rawValue, "label") { try await named.train(some) }
        try some.clear()
        check(some.count == 0)

        // a cancelled task ends, whether it has begun or not; the model stays
        try model.swap(path: out)
        let before = try model.predict("Choir tonight").json
        let (third, told) = AsyncStream.makeStream(of: Void.self)
        let cancelled = DispatchSemaphore(value: 0)
        let run = Task {
            try await model.train(examples, options: few) {
                check($0.step <= 3, "a step after the one in which it was cancelled")
                guard $0.step == 3 else { return }
                told.finish()
                cancelled.wait()
            }
        }
        for await _ in third {}
        run.cancel()
        cancelled.signal()
        check(await isCancelled(run))
        let late = Task {
            while !Task.isCancelled { await Task.yield() }
            return try await model.train(examples, options: few) { check($0.step == 0, "a step of a cancelled task") }
        }
        late.cancel()
        check(await isCancelled(late))
        check(try model.predict("Choir tonight").json == before)
        check(try await model.train(examples, options: one).epochs == 1)
        check(try model.predict("Choir tonight").json != before)

        // tasks predict while one trains and swaps
        let after = try model.predict("Choir tonight").json
        try model.swap(path: out)
        let answers = [after, try model.predict("Choir tonight").json]
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    for _ in 0..<50 {
                        check(answers.contains(try model.predict("Choir tonight").json), "an answer of no whole set")
                    }
                }
            }
            for _ in 0..<5 {
                try await model.train(examples, options: one)
                try model.swap(path: out)
            }
            try await group.waitForAll()
        }

        // another model's biases, and a file of half the size
        let other = try Model(base)
        try other.share(model)
        check(try other.predict("Choir tonight").json == answers[1])
        await fails(TRIMTAB_STATUS_ARGUMENT.rawValue, "contrastive") { try other.share(Model(base, task: "contrastive")) }
        try other.save(path: out, half: true)
        check(try bytes(out).count < bytes(cliBias).count * 2 / 3)
        check(try Model(base, path: out).predict("Choir tonight").labels.map(\.name) == labels)

        // what is freed before what was made of it
        let left = try Model(try Base(path: basePath), path: cliBias).predict("Choir tonight")
        check(left.json == answers[1])
        print("passed with the library \(String(cString: trimtab_version()))")
    }

    static func bytes(_ path: String) throws -> Data { try Data(contentsOf: URL(fileURLWithPath: path)) }
}
