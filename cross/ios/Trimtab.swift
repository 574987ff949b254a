// trimtab in Swift: include/trimtab.h, which says what each call does, with Swift's manners.
import CTrimtab
import Foundation

/// A call failed; the message says what to mend.
public struct TrimtabError: Error, LocalizedError {
    /// A `trimtab_status`, to compare with `TRIMTAB_STATUS_IO.rawValue` and the like.
    public let status: Int32
    public let message: String
    public var errorDescription: String? { message }

    /// Throws where a call did not succeed. On the thread that made the call, whose message it takes.
    static func check(_ status: Int32) throws {
        guard status != 0 else { return }
        throw TrimtabError(status: status, message: String(cString: trimtab_last_error()))
    }
}

/// The frozen part of a model, shared by any number of models.
public final class Base: @unchecked Sendable {
    let handle: OpaquePointer

    public init(path: String) throws {
        var handle: OpaquePointer?
        try TrimtabError.check(trimtab_base_open(path, &handle))
        self.handle = handle!
    }

    /// Copies a file's bytes. What can be mapped takes less memory.
    public init(bytes: Data) throws {
        var handle: OpaquePointer?
        try TrimtabError.check(
            bytes.withUnsafeBytes {
                trimtab_base_of_bytes($0.bindMemory(to: UInt8.self).baseAddress, bytes.count, &handle)
            })
        self.handle = handle!
    }

    deinit { trimtab_base_free(handle) }

    /// Floats of a text's vector.
    public var width: Int { trimtab_base_width(handle) }
}

/// Texts with their labels.
public final class Examples: @unchecked Sendable {
    let handle: OpaquePointer

    public init() throws {
        var handle: OpaquePointer?
        try TrimtabError.check(trimtab_examples_new(&handle))
        self.handle = handle!
    }

    deinit { trimtab_examples_free(handle) }

    public var count: Int { trimtab_examples_count(handle) }

    public func add(_ text: String, second: String? = nil, label: String? = nil) throws {
        try TrimtabError.check(trimtab_examples_add(handle, text, second, label))
    }

    /// Adds the examples of a file, as `trimtab train --data` reads it.
    public func read(path: String, task: String = "classify") throws {
        try TrimtabError.check(trimtab_examples_read(handle, path, task))
    }

    public func clear() throws { try TrimtabError.check(trimtab_examples_clear(handle)) }
}

/// The answer to a text.
public struct Prediction: Sendable {
    public let text: String
    /// As `trimtab predict --json`, without the text.
    public let json: String
    /// Every label with its probability, in the model's order.
    public let labels: [(name: String, probability: Double)]

    init(_ handle: OpaquePointer) {
        text = String(cString: trimtab_prediction_text(handle))
        json = String(cString: trimtab_prediction_json(handle))
        labels = (0..<trimtab_prediction_count(handle)).map {
            (String(cString: trimtab_prediction_label(handle, $0)), trimtab_prediction_probability(handle, $0))
        }
    }
}

/// How much work a run spends on choosing and scoring, as `trimtab_effort`.
public enum Effort: Int32, Sendable {
    case normal = 0
    case quick = 1
    case thorough = 2
}

/// How to train, as `trimtab_train_options`: zeros and nil are chosen from the examples.
public struct TrainOptions: Sendable {
    public var seed: UInt64
    public var epochs: Int
    public var batch: Int
    public var lr: Double
    public var holdOut: Double
    public var patience: Int
    public var terms: String?
    public var layersFrom: Int
    public var layersTo: Int
    public var start: String?
    public var memory: Int
    public var effort: Effort

    public init(
        seed: UInt64 = 0, epochs: Int = 0, batch: Int = 0, lr: Double = 0, holdOut: Double = 0, patience: Int = 0,
        terms: String? = nil, layersFrom: Int = 0, layersTo: Int = 0, start: String? = nil, memory: Int = 0,
        effort: Effort = .normal
    ) {
        (self.seed, self.epochs, self.batch, self.lr, self.holdOut) = (seed, epochs, batch, lr, holdOut)
        (self.patience, self.terms, self.layersFrom, self.layersTo) = (patience, terms, layersFrom, layersTo)
        (self.start, self.memory, self.effort) = (start, memory, effort)
    }

    /// The same for C, whose texts are there for as long as `body` runs.
    func withC<R>(_ body: (inout trimtab_train_options) throws -> R) rethrows -> R {
        let (terms, start) = (self.terms.flatMap { strdup($0) }, self.start.flatMap { strdup($0) })
        defer {
            free(terms)
            free(start)
        }
        var options = trimtab_train_options(
            seed: seed, epochs: epochs, batch: batch, lr: lr, hold_out: holdOut, patience: patience, terms: terms,
            layers_from: layersFrom, layers_to: layersTo, start: start, memory: memory,
            effort: effort.rawValue)
        return try body(&options)
    }
}

/// A user's model. Threads may predict while another trains it.
public final class Model: @unchecked Sendable {
    let handle: OpaquePointer
    let width: Int

    /// A new one; labels that are not named are taken from the examples when it is trained.
    public init(_ base: Base, task: String = "classify", labels: [String]? = nil, threads: Int = 0) throws {
        var options = trimtab_options(max_len: 0, threads: threads)
        let copies = labels?.map { strdup($0) } ?? []
        defer { copies.forEach { free($0) } }
        let names = copies.map { UnsafePointer($0) }
        var handle: OpaquePointer?
        let status = names.withUnsafeBufferPointer {
            trimtab_model_new(base.handle, task, labels == nil ? nil : $0.baseAddress, names.count, &options, &handle)
        }
        try TrimtabError.check(status)
        (self.handle, width) = (handle!, base.width)
    }

    /// One from a bias file of this base.
    public init(_ base: Base, path: String, threads: Int = 0) throws {
        var options = trimtab_options(max_len: 0, threads: threads)
        var handle: OpaquePointer?
        try TrimtabError.check(trimtab_model_open(base.handle, path, &options, &handle))
        (self.handle, width) = (handle!, base.width)
    }

    deinit { trimtab_model_free(handle) }

    public func predict(_ text: String, second: String? = nil) throws -> Prediction {
        var prediction: OpaquePointer?
        try TrimtabError.check(trimtab_model_predict(handle, text, second, &prediction))
        defer { trimtab_prediction_free(prediction) }
        return Prediction(prediction!)
    }

    public func embed(_ text: String) throws -> [Float] {
        var vector = [Float](repeating: 0, count: width)
        try TrimtabError.check(trimtab_model_embed(handle, text, &vector, width))
        return vector
    }

    public func evaluate(_ examples: Examples) throws -> trimtab_scores {
        var scores = trimtab_scores()
        try TrimtabError.check(trimtab_model_evaluate(handle, examples.handle, &scores))
        return scores
    }

    /// Trains away from the caller's thread. Cancelling the task ends the run after its step and throws
    /// `CancellationError`; the model stays as it was. `onProgress` is called on the thread that trains; its `event` is
    /// `TRIMTAB_EVENT_STEP.rawValue` or the like.
    @discardableResult
    public func train(
        _ examples: Examples, heldOut: Examples? = nil, options: TrainOptions = TrainOptions(),
        onProgress: @escaping @Sendable (trimtab_progress) -> Void = { _ in }
    ) async throws -> trimtab_report {
        let watch = Watch(onProgress)
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                // A queue of its own: the run blocks, which Swift's threads must not.
                DispatchQueue(label: "trimtab", qos: .utility).async {
                    continuation.resume(with: Result { try self.run(examples, heldOut, options, watch) })
                }
            }
        } onCancel: {
            watch.cancel()
        }
    }

    private func run(
        _ examples: Examples, _ heldOut: Examples?, _ options: TrainOptions, _ watch: Watch
    ) throws -> trimtab_report {
        var report = trimtab_report()
        let callback: trimtab_progress_fn = { progress, user in
            Unmanaged<Watch>.fromOpaque(user!).takeUnretainedValue().reply(progress!.pointee)
        }
        let status = options.withC {
            trimtab_model_train(
                handle, examples.handle, heldOut?.handle, &$0, callback, Unmanaged.passUnretained(watch).toOpaque(),
                &report)
        }
        // Held until here, for the callback has an unretained pointer to it.
        try withExtendedLifetime(watch) {
            if watch.isCancelled && status != 0 { throw CancellationError() }
            try TrimtabError.check(status)
        }
        return report
    }

    /// Replaces the biases by those of a file, at once.
    public func swap(path: String) throws { try TrimtabError.check(trimtab_model_swap(handle, path)) }

    /// Replaces the biases by those that `other` has now.
    public func share(_ other: Model) throws { try TrimtabError.check(trimtab_model_share(handle, other.handle)) }

    public func save(path: String, half: Bool = false) throws {
        try TrimtabError.check(trimtab_model_save(handle, path, half ? 1 : 0))
    }
}

/// What a run's callback sees, and whether its task was cancelled.
private final class Watch: @unchecked Sendable {
    private let onProgress: @Sendable (trimtab_progress) -> Void
    private let lock = NSLock()
    private var cancelled = false

    init(_ onProgress: @escaping @Sendable (trimtab_progress) -> Void) { self.onProgress = onProgress }

    var isCancelled: Bool {
        lock.lock()
        defer { lock.unlock() }
        return cancelled
    }

    func cancel() {
        lock.lock()
        defer { lock.unlock() }
        cancelled = true
    }

    /// A `trimtab_reply`: 0 goes on, 2 cancels.
    func reply(_ progress: trimtab_progress) -> Int32 {
        onProgress(progress)
        return isCancelled ? 2 : 0
    }
}
