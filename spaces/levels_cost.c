/* levels_cost.c - what a point stands for: channels that stay, bits of values, levels as they fit; and what that costs. */
#include "spaces/levels_internal.h"

/* ---- choices ---------------------------------------------------------------------------------------------------------- */

int32_t nas__levels_kept_at(const nas__levels_space *s, int32_t group, int32_t choice) {
    const int32_t kept = s->first_kept[group] + choice * s->options.step;
    const int32_t channels = s->options.groups[group].channels;
    return kept < channels ? kept : channels;
}

int32_t nas__levels_choices(const nas__levels_space *s, int32_t group) {
    const int32_t room = s->options.groups[group].channels - s->first_kept[group];
    return 1 + (room + s->options.step - 1) / s->options.step;
}

int32_t nas__levels_kept(const nas__levels_space *s, const nas_point *p, int32_t group) {
    const int32_t gene = s->group_gene[group];
    return nas__levels_kept_at(s, group, gene == NAS__LEVELS_NONE ? 0 : p->gene[gene]);
}

int32_t nas__levels_bits(const nas__levels_space *s, const nas_point *p, int32_t value) {
    const int32_t gene = s->value_gene[value];
    return s->options.values[value].bits[gene == NAS__LEVELS_NONE ? 0 : p->gene[gene]];
}

static void width_of(const nas__levels_space *s, const nas_point *p, int32_t layer, int32_t *in,
                     int32_t *out) {
    *in = s->options.layers[layer].in_fixed;
    *out = s->options.layers[layer].out_fixed;
    for (int32_t t = s->first_term[layer]; t < s->first_term[layer + 1]; t++) {
        const nas_amc_term *term = &s->options.terms[t];
        const int32_t channels = term->times * nas__levels_kept(s, p, term->group);
        if (term->is_input) {
            *in += channels;
        } else {
            *out += channels;
        }
    }
}

int32_t nas__levels_asked(const nas__levels_space *s, const nas_point *p, int32_t layer) {
    const nas__places at = s->places[layer];
    const int32_t form = at.form == NAS__LEVELS_NONE ? 0 : p->gene[at.form];
    const int32_t bits = at.bits == NAS__LEVELS_NONE ? 0 : p->gene[at.bits];
    return form * s->options.layers[layer].n_bits + bits;
}

/* The level in a layer of such widths: lighter forms first, then heavier ones. */
static int32_t as_it_fits(const nas__levels_space *s, int32_t layer, int32_t level, int32_t in,
                          int32_t out) {
    const nas_levels_options *o = &s->options;
    const int32_t n_bits = o->layers[layer].n_bits, last = o->layers[layer].n_forms - 1;
    const int32_t asked = level / n_bits, bits = level % n_bits;
    for (int32_t form = asked; form >= 0; form--) {
        if (form == last || o->fits(o->arg, layer, form, in, out)) return form * n_bits + bits;
    }
    for (int32_t form = asked + 1; form < last; form++) {
        if (o->fits(o->arg, layer, form, in, out)) return form * n_bits + bits;
    }
    return last * n_bits + bits;
}

int32_t nas__levels_level(const nas__levels_space *s, const nas_point *p, int32_t layer) {
    const int32_t asked = nas__levels_asked(s, p, layer);
    int32_t in = 0, out = 0;
    if (s->options.n_groups == 0) return asked;
    width_of(s, p, layer, &in, &out);
    return as_it_fits(s, layer, asked, in, out);
}

/* ---- costs ---------------------------------------------------------------------------------------------------------- */

static double layer_cost(const nas__levels_space *s, const nas_point *p, int32_t layer,
                         nas_level_cost kind) {
    const nas_levels_options *o = &s->options;
    const int32_t asked = nas__levels_asked(s, p, layer);
    double cost = o->layers[layer].levels[asked].costs[kind];
    if (o->n_groups > 0) {
        double costs[NAS_LEVEL_COSTS];
        int32_t in = 0, out = 0;
        width_of(s, p, layer, &in, &out);
        o->price(o->arg, layer, as_it_fits(s, layer, asked, in, out), in, out, costs);
        cost = costs[kind];
    }
    const int32_t reads = o->layers[layer].reads;
    return kind == NAS_LEVEL_BOPS && reads > 0 ? cost * nas__levels_bits(s, p, reads - 1) : cost;
}

static double use_cost(const nas__levels_space *s, const nas_point *p, const nas_levels_use *use) {
    const double each = use->bops * nas__levels_bits(s, p, use->value);
    return use->group < 0 ? each : each * nas__levels_kept(s, p, use->group);
}

double nas__levels_cost(const nas__levels_space *s, const nas_point *p, nas_level_cost kind) {
    const nas_levels_options *o = &s->options;
    double sum = o->fixed[kind];
    for (int32_t g = 0; g < o->n_groups; g++)
        sum += o->groups[g].rest[kind] * nas__levels_kept(s, p, g);
    for (int32_t i = 0; i < o->n_layers; i++)
        sum += layer_cost(s, p, i, kind);
    for (int32_t i = 0; i < o->n_uses && kind == NAS_LEVEL_BOPS; i++)
        sum += use_cost(s, p, &o->uses[i]);
    return sum;
}

nas_level_cost nas__levels_exceeded(const nas__levels_space *s, const nas_point *p) {
    int k = 0;
    for (; k < NAS_LEVEL_COSTS; k++) {
        const double limit = s->options.limit[k];
        if (limit > 0 && nas__levels_cost(s, p, (nas_level_cost)k) > limit * (1 + 1e-12)) break;
    }
    return (nas_level_cost)k;
}

/* ---- for studies --------------------------------------------------------------------------------------------------------- */

int32_t nas_space_levels_count(const nas_space *space) {
    return nas__levels_of(space)->options.n_layers;
}

void nas_space_levels_of(const nas_space *space, const nas_point *point, int32_t *level) {
    const nas__levels_space *s = nas__levels_of(space);
    for (int32_t i = 0; i < s->options.n_layers; i++)
        level[i] = nas__levels_level(s, point, i);
}

void nas_space_levels_asked(const nas_space *space, const nas_point *point, int32_t *level) {
    const nas__levels_space *s = nas__levels_of(space);
    for (int32_t i = 0; i < s->options.n_layers; i++)
        level[i] = nas__levels_asked(s, point, i);
}

void nas_space_levels_kept(const nas_space *space, const nas_point *point, int32_t *kept) {
    const nas__levels_space *s = nas__levels_of(space);
    for (int32_t g = 0; g < s->options.n_groups; g++)
        kept[g] = nas__levels_kept(s, point, g);
}

void nas_space_levels_width(const nas_space *space, const nas_point *point, int32_t layer,
                            int32_t *in, int32_t *out) {
    width_of(nas__levels_of(space), point, layer, in, out);
}

void nas_space_levels_bits(const nas_space *space, const nas_point *point, int32_t *bits) {
    const nas__levels_space *s = nas__levels_of(space);
    for (int32_t i = 0; i < s->options.n_values; i++)
        bits[i] = nas__levels_bits(s, point, i);
}

double nas_space_levels_cost(const nas_space *space, const nas_point *point, nas_level_cost kind) {
    return nas__levels_cost(nas__levels_of(space), point, kind);
}
