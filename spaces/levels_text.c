/* levels_text.c - points of spaces of levels as text: channels that stay, a level for each layer, bits of values. */
#include "spaces/levels_internal.h"

#include <stdlib.h>
#include <string.h>

void nas__levels_format(const nas_space *space, const nas_point *p, nas_buf *out) {
    const nas__levels_space *s = nas__levels_of(space);
    const nas_levels_options *o = &s->options;
    nas_buf_printf(out, "%s ", s->name);
    for (int32_t g = 0; g < o->n_groups; g++)
        nas_buf_printf(out, "%" PRId32 "%s", nas__levels_kept(s, p, g),
                       g + 1 < o->n_groups ? "," : " | ");
    for (int32_t i = 0; i < o->n_layers; i++) {
        const int32_t asked = nas__levels_asked(s, p, i), has = nas__levels_level(s, p, i);
        nas_buf_printf(out, "%s%s", i == 0 ? "" : ",", o->layers[i].levels[asked].text);
        if (has != asked) nas_buf_printf(out, ">%s", o->layers[i].levels[has].text);
    }
    for (int32_t i = 0; i < o->n_values; i++)
        nas_buf_printf(out, "%s%" PRId32, i == 0 ? " | " : ",", nas__levels_bits(s, p, i));
}

/* ---- reading ------------------------------------------------------------------------------------------------------------ */

typedef struct reader {
    nas_ctx *ctx;
    const nas__levels_space *s;
    const char *text, *at;
} reader;

static int column(const reader *r) {
    return (int)(r->at - r->text) + 1;
}

/* What stands between two items, or behind the last of a list. */
static nas_status take(reader *r, const char *what) {
    const size_t n = strlen(what);
    if (n > 0 ? strncmp(r->at, what, n) == 0 : *r->at == '\0') {
        r->at += n;
        return NAS_OK;
    }
    if (n == 0) return nas_fail(r->ctx, NAS_ERR_PARSE, "column %d: expected the end", column(r));
    return nas_fail(r->ctx, NAS_ERR_PARSE, "column %d: expected '%s'", column(r), what);
}

static nas_status read_number(reader *r, const char *of, int32_t index, int32_t *out) {
    const size_t digits = strspn(r->at, "0123456789");
    if (digits < 1 || digits > 6)
        return nas_fail(r->ctx, NAS_ERR_PARSE, "column %d: expected %s %d", column(r), of,
                        (int)index + 1);
    *out = (int32_t)strtol(r->at, NULL, 10);
    return NAS_OK;
}

static void skip_number(reader *r) {
    r->at += strspn(r->at, "0123456789");
}

static nas_status read_kept(reader *r, int32_t group, nas_point *out) {
    const nas__levels_space *s = r->s;
    int32_t kept = 0, choice = 0;
    const nas_status status = read_number(r, "the channels of group", group, &kept);
    if (status != NAS_OK) return status;
    while (choice < nas__levels_choices(s, group) && nas__levels_kept_at(s, group, choice) != kept)
        choice++;
    if (choice == nas__levels_choices(s, group))
        return nas_fail(r->ctx, NAS_ERR_RANGE,
                        "column %d: %d channels of group %d: the space offers %d to %d in steps of "
                        "%d",
                        column(r), (int)kept, (int)group + 1, (int)s->first_kept[group],
                        (int)s->options.groups[group].channels, (int)s->options.step);
    if (s->group_gene[group] != NAS__LEVELS_NONE) out->gene[s->group_gene[group]] = choice;
    skip_number(r);
    return NAS_OK;
}

static nas_status read_bits(reader *r, int32_t value, nas_point *out) {
    const nas_levels_value *v = &r->s->options.values[value];
    int32_t bits = 0, choice = 0;
    const nas_status status = read_number(r, "the bits of value", value, &bits);
    if (status != NAS_OK) return status;
    while (choice < v->n_bits && v->bits[choice] != bits)
        choice++;
    if (choice == v->n_bits)
        return nas_fail(r->ctx, NAS_ERR_RANGE, "column %d: value %d is not offered %d bits",
                        column(r), (int)value + 1, (int)bits);
    if (r->s->value_gene[value] != NAS__LEVELS_NONE) out->gene[r->s->value_gene[value]] = choice;
    skip_number(r);
    return NAS_OK;
}

static nas_status read_level(reader *r, int32_t layer, nas_point *out) {
    const nas_levels_layer *l = &r->s->options.layers[layer];
    const nas__places genes = r->s->places[layer];
    const size_t len = strcspn(r->at, ", >");
    if (len == 0)
        return nas_fail(r->ctx, NAS_ERR_PARSE, "column %d: expected the level of layer %d",
                        column(r), (int)layer + 1);
    for (int32_t k = 0; k < l->n_forms * l->n_bits; k++) {
        if (strlen(l->levels[k].text) != len || memcmp(l->levels[k].text, r->at, len) != 0)
            continue;
        if (genes.form != NAS__LEVELS_NONE) out->gene[genes.form] = k / l->n_bits;
        if (genes.bits != NAS__LEVELS_NONE) out->gene[genes.bits] = k % l->n_bits;
        r->at += len;
        return NAS_OK;
    }
    return nas_fail(r->ctx, NAS_ERR_RANGE, "column %d: layer %d has no level '%.*s'", column(r),
                    (int)layer + 1, (int)(len < 40 ? len : 40), r->at);
}

/* ">level": the groups before it say whether that is so. */
static nas_status read_instead(reader *r, int32_t layer, const nas_point *p) {
    const nas_levels_layer *l = &r->s->options.layers[layer];
    const int32_t has = nas__levels_level(r->s, p, layer);
    const char *text = l->levels[has].text;
    const bool differs = has != nas__levels_asked(r->s, p, layer);
    if (*r->at != '>' && !differs) return NAS_OK;
    const size_t len = strlen(text);
    if (differs && *r->at == '>' && strncmp(r->at + 1, text, len) == 0) {
        r->at += 1 + len;
        return NAS_OK;
    }
    return nas_fail(r->ctx, NAS_ERR_PARSE,
                    "column %d: layer %d has the level '%s' with these channels", column(r),
                    (int)layer + 1, text);
}

nas_status nas__levels_parse(nas_ctx *ctx, const nas_space *space, const char *text,
                             nas_point *out) {
    const nas__levels_space *s = nas__levels_of(space);
    const nas_levels_options *o = &s->options;
    reader r = {.ctx = ctx, .s = s, .text = text, .at = text};
    const size_t name = strlen(s->name);
    if (strncmp(text, s->name, name) != 0 || text[name] != ' ')
        return nas_fail(ctx, NAS_ERR_PARSE, "column 1: expected \"%s \"", s->name);
    r.at += name + 1;
    *out = (nas_point){.n = space->n_genes};
    nas_status status = NAS_OK;
    for (int32_t g = 0; g < o->n_groups && status == NAS_OK; g++) {
        status = read_kept(&r, g, out);
        if (status == NAS_OK) status = take(&r, g + 1 < o->n_groups ? "," : " | ");
    }
    for (int32_t i = 0; i < o->n_layers && status == NAS_OK; i++) {
        status = read_level(&r, i, out);
        if (status == NAS_OK) status = read_instead(&r, i, out);
        if (status == NAS_OK && i + 1 < o->n_layers) status = take(&r, ",");
    }
    for (int32_t i = 0; i < o->n_values && status == NAS_OK; i++) {
        status = take(&r, i == 0 ? " | " : ",");
        if (status == NAS_OK) status = read_bits(&r, i, out);
    }
    return status == NAS_OK ? take(&r, "") : status;
}
