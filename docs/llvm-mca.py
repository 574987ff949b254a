#!/usr/bin/env python3
"""What llvm-mca says of the ARM tiles, as Markdown: `docs/llvm-mca.py > table.md`.

Compiles src/kernels alone, without tract, for aarch64 (minutes, once, where std is built too), takes the inner loops that
src/kernels/{neon,dotprod,i8mm}.rs mark, and simulates each loop, and a whole block of 64 values: start, loops,
last group and epilogue. `docs/llvm-mca.py FILE.s` takes an assembly file instead of compiling.

Needs llvm-mca 20 or later (LLVM_MCA names it) and the target aarch64-unknown-linux-gnu, or, where rustup cannot
install it, Debian's rustc-web, cargo-web and rust-web-src.
"""
import glob, os, re, shutil, subprocess, sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = "aarch64-unknown-linux-gnu"
# Of each set: what multiplies, the cores to simulate (the first is the one to judge by), loops of a block.
SETS = {
    "neon": (r"sm(ul|la)l2?$", ["cortex-a72", "cortex-a53"], 3),
    "dotprod": (r"sdot$", ["neoverse-n1", "cortex-a76", "cortex-a55"], 3),
    "i8mm": (r"smmla$", ["neoverse-n2", "cortex-x2", "neoverse-v1"], 7),
}


def compile_kernels():
    """The path of the kernels' assembly."""
    crate = os.path.join(ROOT, "target", "llvm-mca")
    os.makedirs(crate, exist_ok=True)
    toml = open(os.path.join(ROOT, "Cargo.toml")).read()
    wanted = r"^(?:bytemuck|half|libc|libm|memmap2|rayon|serde|thiserror) = .*$"
    with open(os.path.join(crate, "Cargo.toml"), "w") as f:
        f.write('[package]\nname = "kernels"\nversion = "0.0.0"\nedition = "2024"\n[lib]\npath = "lib.rs"\n')
        f.write("[workspace]\n[profile.release]\ncodegen-units = 1\n[dependencies]\n")
        f.write("\n".join(re.findall(wanted, toml, re.M)) + "\n")
    with open(os.path.join(crate, "lib.rs"), "w") as f:
        for name, path in [("error", "error.rs"), ("config", "config.rs"), ("kernels", "kernels/mod.rs")]:
            f.write(f'#[path = "{ROOT}/src/{path}"]\npub mod {name};\n')
    shutil.copy(os.path.join(ROOT, "Cargo.lock"), crate)
    env, cargo, flags = dict(os.environ), "cargo", []
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True).stdout.strip()
    if not os.path.isdir(os.path.join(sysroot, "lib", "rustlib", TARGET)):
        env.update(RUSTC_BOOTSTRAP="1", RUSTC="/usr/bin/rustc")
        cargo, flags = "/usr/bin/cargo", ["-Zbuild-std=std"]
    env.setdefault("CARGO_TARGET_DIR", os.path.join(crate, "target"))
    command = [cargo, "rustc", *flags, "--release", "--lib", "--target", TARGET, "--", "--emit", "asm"]
    if subprocess.run(command, cwd=crate, env=env).returncode:
        sys.exit(f"no assembly: `rustup target add {TARGET}`, or apt-get install rustc-web cargo-web rust-web-src")
    found = glob.glob(os.path.join(env["CARGO_TARGET_DIR"], TARGET, "release", "deps", "kernels-*.s"))
    return max(found, key=os.path.getmtime)


def instructions(text):
    lines = (line.split("//")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and not line.endswith(":") and not line.startswith(".")]


def simulate(lines, cpu, iterations=200):
    """Cycles of an iteration, and llvm-mca's summary."""
    mca = os.environ.get("LLVM_MCA") or shutil.which("llvm-mca-22") or "llvm-mca"
    command = [mca, "-march=aarch64", f"-mcpu={cpu}", "-mattr=+dotprod,+i8mm", f"-iterations={iterations}",
               "-instruction-info=false", "-resource-pressure=false"]
    run = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True)
    if run.returncode:
        sys.exit(run.stderr)
    return int(re.search(r"Total Cycles:\s+(\d+)", run.stdout)[1]) / iterations, run.stdout.strip()


def bound(lines, multiply, cpu):
    """Cycles if only the multiplies issued, at their full rate."""
    only = [line for line in lines if re.match(multiply, line.split()[0])]
    return float(re.search(r"Block RThroughput:\s+([\d.]+)", simulate(only, cpu)[1])[1])


def main():
    text = open(sys.argv[1] if len(sys.argv) > 1 else compile_kernels()).read()
    blocks = {}
    for asm in re.findall(r"//APP\n(.*?)//NO_APP", text, re.S):
        parts = re.match(r"(.*)// LLVM-MCA-BEGIN (\S+)\n(.*?)// LLVM-MCA-END\n(.*)", asm, re.S)
        if parts:
            blocks[parts[2]] = [instructions(parts[i]) for i in (1, 3, 4)]
    print("| tile | core | bound, cycles | loop, cycles | of the bound | whole block, of the bound |")
    print("|---|---|---:|---:|---:|---:|")
    for name, (multiply, cpus, loops) in SETS.items():
        tiles = sorted((t for t in blocks if t.startswith(name + "-")), reverse=True)
        for tile in tiles:
            start, loop, end = blocks[tile]
            block = start + loops * [line for line in loop if not line.startswith("b.")] + end
            for cpu in cpus if tile == tiles[0] else cpus[:1]:
                least, cycles = bound(loop, multiply, cpu), simulate(loop, cpu)[0]
                whole = bound(block, multiply, cpu) / simulate(block, cpu)[0]
                print(f"| {tile} | {cpu} | {least:.1f} | {cycles:.2f} | {least / cycles:.1%} | {whole:.1%} |")
    for name, (_, cpus, _) in SETS.items():
        tile = max(t for t in blocks if t.startswith(name + "-"))
        loop = blocks[tile][1]
        print(f"\n`{tile}`, {len(loop)} instructions, left to right:\n\n```asm")
        cells = [re.sub(r"\.Ltmp\d+", ".loop", line.replace("\t", " ")) for line in loop]
        for i in range(0, len(cells), 3):
            print("".join(cell.ljust(38) for cell in cells[i:i + 3]).rstrip())
        print(f"```\n\n`llvm-mca -march=aarch64 -mcpu={cpus[0]} -mattr=+dotprod,+i8mm -iterations=200`:\n\n```")
        print(simulate(loop, cpus[0])[1] + "\n```")


main()
