/* steps.c - a point as a sequence of decisions: what a space says of its genes, or what can be read off them when it
 * says nothing. */
#include "spaces/spaces_internal.h"

#include <string.h>

enum { ROLES_MAX = 16 };

/* Distinct roles among the genes: "expand" of "block3.expand", the whole name where there is no dot. */
typedef struct roles {
    int32_t n;
    const char *name[ROLES_MAX];
} roles;

static const char *role_of(const nas_gene *gene) {
    const char *dot = strrchr(gene->name, '.');
    return dot != NULL ? dot + 1 : gene->name;
}

/* Roles beyond ROLES_MAX share the last number. */
static int32_t role_number(roles *r, const char *role) {
    for (int32_t i = 0; i < r->n; i++) {
        if (strcmp(r->name[i], role) == 0) return i;
    }
    if (r->n == ROLES_MAX) return ROLES_MAX - 1;
    r->name[r->n] = role;
    return r->n++;
}

enum { PLACE, CHOICES, KIND, ROLE = KIND + NAS_GENE_BOOL + 1 };

static nas_status describe_genes(nas_ctx *ctx, const nas_space *space, nas_space_steps *out) {
    roles known = {0};
    int32_t most = 1;
    for (int32_t i = 0; i < space->n_genes; i++) {
        (void)role_number(&known, role_of(&space->genes[i])); /* counts them */
        if (space->genes[i].cardinality > most) most = space->genes[i].cardinality;
    }
    out->n_features = ROLE + known.n;
    out->features = nas_alloc_array(ctx, (size_t)(space->n_genes * out->n_features), sizeof(float));
    if (out->features == NULL) return NAS_ERR_NOMEM;
    for (int32_t i = 0; i < space->n_genes; i++) {
        const nas_gene *gene = &space->genes[i];
        float *f = out->features + (ptrdiff_t)i * out->n_features;
        f[PLACE] = (float)(i + 1) / (float)space->n_genes;
        f[CHOICES] = (float)gene->cardinality / (float)most;
        f[KIND + (int)gene->kind] = 1;
        f[ROLE + role_number(&known, role_of(gene))] = 1;
    }
    return NAS_OK;
}

/* Each gene a node, joined to the gene before. */
static nas_status chain(nas_ctx *ctx, nas_space_steps *out) {
    const int32_t n = out->n_steps;
    out->n_nodes = n;
    out->n_node_features = out->n_features;
    out->n_edges = n > 0 ? n - 1 : 0;
    const size_t size = (size_t)(n * out->n_features);
    out->nodes = nas_alloc_array(ctx, size, sizeof *out->nodes);
    out->edges = nas_alloc_array(ctx, (size_t)out->n_edges, sizeof *out->edges);
    out->node_of = nas_alloc_array(ctx, (size_t)n, sizeof *out->node_of);
    if (out->nodes == NULL || out->edges == NULL || out->node_of == NULL) return NAS_ERR_NOMEM;
    memcpy(out->nodes, out->features, size * sizeof *out->nodes);
    for (int32_t i = 0; i < n; i++) {
        out->node_of[i] = i;
        if (i == 0) continue;
        out->edges[i - 1][0] = i - 1;
        out->edges[i - 1][1] = i;
    }
    return NAS_OK;
}

nas_status nas_space_steps_new(nas_ctx *ctx, const nas_space *space, nas_space_steps **out) {
    if (space->ops->outlook == NULL) {
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "space '%s' cannot be decided gene by gene: use a strategy that needs no "
                        "policy, such as nsga2",
                        space->ops->name);
    }
    nas_space_steps *steps = nas_alloc_array(ctx, 1, sizeof *steps);
    if (steps == NULL) return NAS_ERR_NOMEM;
    steps->n_steps = space->n_genes;
    nas_status status = NAS_OK;
    if (space->ops->steps != NULL) {
        status = space->ops->steps(ctx, space, steps);
    } else {
        status = describe_genes(ctx, space, steps);
        if (status == NAS_OK) status = chain(ctx, steps);
    }
    if (status != NAS_OK) {
        nas_space_steps_free(steps);
        return status;
    }
    *out = steps;
    return NAS_OK;
}

void nas_space_steps_free(nas_space_steps *steps) {
    if (steps == NULL) return;
    nas_free(steps->features);
    nas_free(steps->nodes);
    nas_free(steps->edges);
    nas_free(steps->node_of);
    nas_free(steps);
}

void nas_space_outlook(const nas_space *space, const nas_point *prefix, int32_t step,
                       nas_outlook *out) {
    space->ops->outlook(space, prefix, step, out);
}
