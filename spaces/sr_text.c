/* sr_text.c - the text form of "sr" points; grammar in spaces/space.h. The reader takes text from people and databases:
 * it reads each byte once, allocates nothing and names the column of the first mistake. */
#include "spaces/spaces_internal.h"

#include <stdio.h>
#include <string.h>

void nas__sr_format(const nas_space *space, const nas_point *point, nas_buf *out) {
    const nas_sr_options *o = &nas__sr(space)->options;
    const int32_t *gene = point->gene;
    nas_buf_printf(out, "sr x%" PRId32 " f%" PRId32 " h%" PRId32 " t%" PRId32 " s%" PRId32 " |",
                   o->scale, nas__range_value(o->residual, gene[NAS__SR_RESIDUAL]),
                   o->head_kernels[gene[NAS__SR_HEAD]], o->tail_kernels[gene[NAS__SR_TAIL]],
                   o->skip_kernels[gene[NAS__SR_SKIP]]);
    for (int32_t b = 0; b < o->blocks_max; b++) {
        if (gene[nas__sr_keep(b)] == 0) {
            nas_buf_printf(out, " %" PRId32 ":-", b + 1);
        } else {
            nas_buf_printf(out, " %" PRId32 ":%" PRId32 ",%" PRId32, b + 1,
                           nas__range_value(o->expand, gene[nas__sr_expand(b)]),
                           nas__range_value(o->project, gene[nas__sr_project(b)]));
        }
    }
}

/* ---- reader -------------------------------------------------------------------------------------------------- */

typedef struct reader {
    nas_ctx *ctx;
    const char *text;
    size_t at;
} reader;

static nas_status unexpected(const reader *r, const char *wanted) {
    const unsigned char c = (unsigned char)r->text[r->at];
    char found[16] = "the end";
    if (c >= 0x20 && c < 0x7f) {
        (void)snprintf(found, sizeof found, "'%c'", c);
    } else if (c != '\0') {
        (void)snprintf(found, sizeof found, "byte 0x%02x", c);
    }
    return nas_fail(r->ctx, NAS_ERR_PARSE, "column %zu: expected %s, found %s", r->at + 1, wanted,
                    found);
}

static nas_status read_word(reader *r, const char *word) {
    for (size_t i = 0; word[i] != '\0'; i++) {
        if (r->text[r->at + i] != word[i]) { /* stops at the NUL of text at the latest */
            char wanted[32];
            (void)snprintf(wanted, sizeof wanted, "\"%s\"", word);
            return unexpected(r, wanted);
        }
    }
    r->at += strlen(word);
    return NAS_OK;
}

static nas_status read_blanks(reader *r) {
    if (r->text[r->at] != ' ') return unexpected(r, "a blank");
    while (r->text[r->at] == ' ')
        r->at++;
    return NAS_OK;
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static nas_status read_number(reader *r, int32_t *out) {
    enum { DIGITS_MAX = 6 };
    int32_t value = 0;
    size_t n = 0;
    while (n < DIGITS_MAX && is_digit(r->text[r->at + n])) {
        value = value * 10 + (r->text[r->at + n] - '0');
        n++;
    }
    if (n == 0) return unexpected(r, "a number");
    if (n > 1 && r->text[r->at] == '0') {
        return nas_fail(r->ctx, NAS_ERR_PARSE, "column %zu: number with a leading zero", r->at + 1);
    }
    if (is_digit(r->text[r->at + n])) {
        return nas_fail(r->ctx, NAS_ERR_PARSE, "column %zu: number of more than %d digits",
                        r->at + 1, (int)DIGITS_MAX);
    }
    r->at += n;
    *out = value;
    return NAS_OK;
}

static nas_status read_width(reader *r, const char *field, nas_range range, int32_t *choice) {
    const size_t column = r->at + 1;
    int32_t value = 0;
    const nas_status status = read_number(r, &value);
    if (status != NAS_OK) return status;
    if (value < range.min || value > range.max || (value - range.min) % range.step != 0) {
        return nas_fail(r->ctx, NAS_ERR_RANGE,
                        "column %zu: %s is %" PRId32 ", the space offers %" PRId32 "..%" PRId32
                        " in steps of %" PRId32,
                        column, field, value, range.min, range.max, range.step);
    }
    *choice = (value - range.min) / range.step;
    return NAS_OK;
}

/* Reads " <letter><kernel>". */
static nas_status read_kernel(reader *r, const char *letter, const char *field, int32_t n,
                              const int32_t *kernels, int32_t *choice) {
    nas_status status = read_blanks(r);
    if (status == NAS_OK) status = read_word(r, letter);
    const size_t column = r->at + 1;
    int32_t value = 0;
    if (status == NAS_OK) status = read_number(r, &value);
    if (status != NAS_OK) return status;
    for (int32_t i = 0; i < n; i++) {
        if (kernels[i] == value) {
            *choice = i;
            return NAS_OK;
        }
    }
    char offers[64] = "";
    size_t len = 0;
    for (int32_t i = 0; i < n; i++) {
        const int added = snprintf(offers + len, sizeof offers - len, " %" PRId32, kernels[i]);
        if (added > 0) len += (size_t)added; /* four kernels of one digit: never cut */
    }
    return nas_fail(r->ctx, NAS_ERR_RANGE,
                    "column %zu: %s is kernel %" PRId32 ", the space offers%s", column, field,
                    value, offers);
}

static nas_status read_scale(reader *r, int32_t scale) {
    nas_status status = read_word(r, "sr");
    if (status == NAS_OK) status = read_blanks(r);
    if (status == NAS_OK) status = read_word(r, "x");
    const size_t column = r->at + 1;
    int32_t value = 0;
    if (status == NAS_OK) status = read_number(r, &value);
    if (status != NAS_OK || value == scale) return status;
    return nas_fail(r->ctx, NAS_ERR_INVALID,
                    "column %zu: scale is x%" PRId32 ", the space has x%" PRId32, column, value,
                    scale);
}

/* Reads " <number>:-" or " <number>:<expand>,<project>"; `block` counts from 0. */
static nas_status read_block(reader *r, const nas_sr_options *o, int32_t block, nas_point *point) {
    char label[16];
    char field[32];
    (void)snprintf(label, sizeof label, "%d:", (int)block + 1);
    nas_status status = read_blanks(r);
    if (status == NAS_OK) status = read_word(r, label);
    if (status != NAS_OK) return status;
    if (r->text[r->at] == '-') {
        r->at++;
        return NAS_OK;
    }
    if (!is_digit(r->text[r->at])) return unexpected(r, "a width or '-'");
    point->gene[nas__sr_keep(block)] = 1;
    (void)snprintf(field, sizeof field, "block%d.expand", (int)block + 1);
    status = read_width(r, field, o->expand, &point->gene[nas__sr_expand(block)]);
    if (status == NAS_OK) status = read_word(r, ",");
    (void)snprintf(field, sizeof field, "block%d.project", (int)block + 1);
    if (status == NAS_OK)
        status = read_width(r, field, o->project, &point->gene[nas__sr_project(block)]);
    return status;
}

nas_status nas__sr_parse(nas_ctx *ctx, const nas_space *space, const char *text, nas_point *out) {
    const nas_sr_options *o = &nas__sr(space)->options;
    reader r = {.ctx = ctx, .text = text};
    nas_point point = {.n = space->n_genes};
    nas_status status = read_scale(&r, o->scale);
    if (status == NAS_OK) status = read_blanks(&r);
    if (status == NAS_OK) status = read_word(&r, "f");
    if (status == NAS_OK)
        status = read_width(&r, "residual", o->residual, &point.gene[NAS__SR_RESIDUAL]);
    if (status == NAS_OK) {
        status = read_kernel(&r, "h", "head", o->n_head_kernels, o->head_kernels,
                             &point.gene[NAS__SR_HEAD]);
    }
    if (status == NAS_OK) {
        status = read_kernel(&r, "t", "tail", o->n_tail_kernels, o->tail_kernels,
                             &point.gene[NAS__SR_TAIL]);
    }
    if (status == NAS_OK) {
        status = read_kernel(&r, "s", "skip", o->n_skip_kernels, o->skip_kernels,
                             &point.gene[NAS__SR_SKIP]);
    }
    if (status == NAS_OK) status = read_blanks(&r);
    if (status == NAS_OK) status = read_word(&r, "|");
    for (int32_t b = 0; b < o->blocks_max && status == NAS_OK; b++)
        status = read_block(&r, o, b, &point);
    if (status == NAS_OK && text[r.at] != '\0') status = unexpected(&r, "the end");
    if (status == NAS_OK) *out = point;
    return status;
}
