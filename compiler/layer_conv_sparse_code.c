/* layer_conv_sparse_code.c - unstructured zeros as instructions.
 *
 * Where no outputs share what they keep, a list costs a load and a branch that is often mispredicted for few products. Here
 * the mask is the program: for a group of outputs and a block of pixel vectors, each step of the sum that one of them
 * keeps loads its vectors, each weight is multiply-adds with the next value of a stream. No branches, no indices. The code
 * of a group runs for the blocks of a tile one after another. A C compiler takes minutes for such text, so machine code is
 * written here: into a program as a file that the assembler takes in as it is, into a bundle as numbers in an assembler
 * block of the unit. It lies in the read-only executable section of the program as everything else does.
 *
 * What is written is the affair of a small assembler for each architecture: layer_conv_code_x86.c, layer_conv_code_arm.c.
 * way->vectors are the vectors of a tile, way->pixels those of a block, way->group the outputs of a group; the steps may be
 * cut into parts of way->depth, whose panel leaves room in L1 (x86-64). The panel is [block][step][vector][lane], so that a
 * pass of the code reads it in order; sums are [output][pixel]; the stream of a group is the biases of its outputs (in the
 * first part), then its weights in the order of the steps. */
#include "compiler/layer_conv_internal.h"

#include <string.h>

static const nas__code_writer *const writers[] = {&nas__code_avx2, &nas__code_avx512,
                                                  &nas__code_arm};
enum { WRITERS = sizeof writers / sizeof writers[0] };

const nas__code_writer *nas__sparse_code_writer(const nas_target *target) {
    for (int32_t i = 0; i < WRITERS; i++) {
        if (strcmp(writers[i]->arch, target->arch) == 0 &&
            writers[i]->vector_bytes == target->vector_bytes)
            return writers[i];
    }
    return NULL;
}

static int32_t parts_of(const nas__conv *c, const nas__conv_way *way) {
    const int32_t steps = c->kernel_h * c->kernel_w * c->in_c;
    return way->depth > 0 ? (steps + way->depth - 1) / way->depth : 1;
}

nas__code_asks nas__sparse_code_asks(const nas_target *target, const nas__conv *c,
                                     const nas__conv_way *way) {
    enum { LINE = 64 };
    const nas__code_writer *w = nas__sparse_code_writer(target);
    if (w == NULL || !w->asks) return (nas__code_asks){NAS__ASKS_NONE, 0};
    const int32_t groups = (c->out_c + way->group - 1) / way->group;
    const int32_t turns = LINE * parts_of(c, way) * groups * (way->vectors / way->pixels);
    const int32_t bytes = nas__sparse_asks_bytes(target, c, way);
    return (nas__code_asks){nas__sparse_asks(target, c), (bytes + turns - 1) / turns};
}

bool nas__code_keeps(const nas__conv *c, int32_t output, int32_t step) {
    const size_t steps = (size_t)c->kernel_h * (size_t)c->kernel_w * (size_t)c->in_c;
    return output < c->out_c && c->kept[(size_t)output * steps + (size_t)step] != 0;
}

/* ---- text --------------------------------------------------------------------------------------------------------- */

/* A number of n bytes, the lowest first, at `out`; a printf for each would take most of the time. Returns its length. */
static size_t put_word(const char *bytes, int32_t n, char *out) {
    static const char digits[] = "0123456789abcdef";
    out[0] = '0';
    out[1] = 'x';
    for (int32_t k = 0; k < n; k++) {
        const uint8_t byte = (uint8_t)bytes[n - 1 - k];
        out[2 + 2 * k] = digits[byte >> 4];
        out[3 + 2 * k] = digits[byte & 15];
    }
    return (size_t)(2 + 2 * n);
}

nas__machine_code nas__sparse_code(const nas_target *target, const nas__conv *c,
                                   const nas__conv_way *way) {
    const nas__code_writer *w = nas__sparse_code_writer(target);
    nas__machine_code code = {.word_bytes = w->word_bytes, .directive = w->directive};
    const nas__code_asks asks = nas__sparse_code_asks(target, c, way);
    w->write(c, way, &asks, &code.bytes);
    return code;
}

void nas__machine_code_text(const nas__machine_code *code, const char *name, nas_buf *out) {
    enum { LINE_BYTES = 64 };
    const size_t word = (size_t)code->word_bytes;
    if (code->bytes.failed) out->failed = true;
    nas_buf_printf(out,
                   "/* the mask as instructions */\n"
                   "__asm__(\".pushsection .text\\n.p2align 5\\n.type %s_code, "
                   "%%function\\n%s_code:\\n\"",
                   name, name);
    for (size_t i = 0; i < code->bytes.len; i += LINE_BYTES) {
        char line[4 * LINE_BYTES];
        size_t at = 0;
        for (size_t k = i; k < i + LINE_BYTES && k < code->bytes.len; k += word) {
            if (k > i) line[at++] = ',';
            at += put_word(code->bytes.data + k, code->word_bytes, line + at);
        }
        nas_buf_printf(out, "\n    \"%s ", code->directive);
        nas_buf_append(out, line, at);
        nas_buf_puts(out, "\\n\"");
    }
    nas_buf_printf(out, "\n    \".size %s_code, . - %s_code\\n.popsection\\n\");\n", name, name);
}

/* ---- the stream of values ----------------------------------------------------------------------------------------- */

/* Steps of part `part`: [*from, the result). */
static int32_t part_of(const nas__conv *c, const nas__conv_way *way, int32_t part, int32_t *from) {
    const int32_t steps = c->kernel_h * c->kernel_w * c->in_c;
    const int32_t depth = way->depth > 0 ? way->depth : steps;
    *from = part * depth;
    return *from + depth < steps ? *from + depth : steps;
}

/* Values of the group from `first` on for the steps [from, to), without what fills it up. */
static int32_t stream_of(const nas__conv *c, int32_t first, int32_t n, int32_t from, int32_t to) {
    int32_t values = 0;
    for (int32_t o = first; o < first + n && o < c->out_c; o++) {
        values += from == 0;
        for (int32_t k = from; k < to; k++)
            values += nas__code_keeps(c, o, k);
    }
    return values;
}

static int32_t padded(const nas__code_writer *w, int32_t values) {
    return (values + w->round - 1) / w->round * w->round;
}

int32_t nas__sparse_code_weights(const nas_target *target, const nas__conv *c,
                                 const nas__conv_way *way) {
    const nas__code_writer *w = nas__sparse_code_writer(target);
    int32_t floats = 0;
    for (int32_t part = 0; part < parts_of(c, way); part++) {
        int32_t from = 0;
        const int32_t to = part_of(c, way, part, &from);
        for (int32_t first = 0; first < c->out_c; first += way->group)
            floats += padded(w, stream_of(c, first, way->group, from, to));
    }
    return floats;
}

/* Weights of the outputs [first, to_output) for the steps [from, to); the number of entries so far, -1: more than planned. */
static int32_t pack_steps(const nas__conv *c, int32_t first, int32_t to_output, int32_t from,
                          int32_t to, int32_t entries, int32_t entries_max, const float *weight,
                          float **out) {
    const int32_t steps = c->kernel_h * c->kernel_w * c->in_c;
    for (int32_t k = from; k < to; k++) {
        for (int32_t o = first; o < to_output; o++) {
            if (!nas__code_keeps(c, o, k)) continue;
            if (entries++ == entries_max) return -1;
            *(*out)++ = weight[(size_t)o * (size_t)steps + (size_t)k];
        }
    }
    return entries;
}

bool nas__sparse_code_pack(const nas_target *target, const nas__conv *c, const nas__conv_way *way,
                           const float *weight, const float *bias, float *out) {
    const nas__code_writer *w = nas__sparse_code_writer(target);
    int32_t entries = 0;
    for (int32_t part = 0; part < parts_of(c, way); part++) {
        int32_t from = 0;
        const int32_t to = part_of(c, way, part, &from);
        for (int32_t first = 0; first < c->out_c; first += way->group) {
            const int32_t last = first + way->group < c->out_c ? first + way->group : c->out_c;
            const float *const begin = out;
            for (int32_t o = first; o < last && part == 0; o++)
                *out++ = bias != NULL ? bias[o] : 0;
            entries = pack_steps(c, first, last, from, to, entries, way->entries, weight, &out);
            if (entries < 0) return false;
            while ((out - begin) % w->round != 0)
                *out++ = 0;
        }
    }
    return entries == way->entries;
}
