// Counts the instructions that a program executes under qemu's user mode; printed to stderr when it ends.
// gcc -shared -fPIC -O2 -o libinsn.so docs/qemu-insn.c
// qemu-aarch64 -cpu max -d plugin -plugin ./libinsn.so PROGRAM (from Debian 12's qemu-user; the static one has no plugins)

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>

// What of qemu-plugin.h (API version 1) is used, so that no header need be installed.
typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
typedef void (*tb_trans_cb)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb);
typedef void (*exec_cb)(unsigned int vcpu, void *data);
typedef void (*atexit_cb)(qemu_plugin_id_t id, void *data);
enum { QEMU_PLUGIN_CB_NO_REGS };
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, tb_trans_cb cb);
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, exec_cb cb, int flags, void *data);
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, atexit_cb cb, void *data);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
extern void qemu_plugin_outs(const char *text);

int qemu_plugin_version = 1;

// The program has threads, so the sum is atomic (the plugin API's inline add is not).
static uint64_t executed;

static void block_runs(unsigned int vcpu, void *instructions)
{
    (void)vcpu;
    __atomic_fetch_add(&executed, (uintptr_t)instructions, __ATOMIC_RELAXED);
}

// A block is left early only by a fault, so its whole length is counted where it starts.
static void block_translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cb(tb, block_runs, QEMU_PLUGIN_CB_NO_REGS, (void *)qemu_plugin_tb_n_insns(tb));
}

static void program_ends(qemu_plugin_id_t id, void *data)
{
    (void)id, (void)data;
    char line[64];
    snprintf(line, sizeof line, "instructions: %" PRIu64 "\n", executed);
    qemu_plugin_outs(line);
}

int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, block_translated);
    qemu_plugin_register_atexit_cb(id, program_ends, NULL);
    return 0;
}
