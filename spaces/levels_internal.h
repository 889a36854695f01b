/* levels_internal.h - the state of a space of levels, shared by levels.c, levels_cost.c and levels_text.c. */
#ifndef NAS_SPACES_LEVELS_INTERNAL_H
#define NAS_SPACES_LEVELS_INTERNAL_H

#include "spaces/levels.h"
#include "spaces/spaces_internal.h"

enum { NAS__LEVELS_NONE = -1 };

/* Genes of a layer; NONE where there is but one choice. */
typedef struct nas__places {
    int32_t form, bits;
} nas__places;

typedef struct nas__levels_space {
    nas_space base;
    nas_arena *arena;
    nas_levels_options options; /* lists, levels and texts are copies in the arena */
    char name[NAS_LEVELS_NAME_MAX + 1];
    nas__places *places; /* [layer] */
    int32_t *group_gene; /* [group]; NONE: one choice */
    int32_t *value_gene; /* [value] */
    int32_t *unit_of; /* [gene] what is inherited together: genes of a layer have the same number */
    int32_t *first_kept; /* [group] smallest number of channels that is a choice */
    int32_t *first_term; /* [layer + 1] */
    nas_level_cost
        measure; /* that the outlook counts in: the first one that is limited, else bytes */
} nas__levels_space;

static inline const nas__levels_space *nas__levels_of(const nas_space *space) {
    return (const nas__levels_space *)space; /* base is the first member */
}

/* ---- levels_cost.c ---- */
int32_t nas__levels_choices(const nas__levels_space *s, int32_t group);
int32_t nas__levels_kept(const nas__levels_space *s, const nas_point *p, int32_t group);
int32_t nas__levels_kept_at(const nas__levels_space *s, int32_t group, int32_t choice);
int32_t nas__levels_bits(const nas__levels_space *s, const nas_point *p, int32_t value);
/* nas__levels_asked - the level that the genes name; _level: the one that the layer has. */
int32_t nas__levels_asked(const nas__levels_space *s, const nas_point *p, int32_t layer);
int32_t nas__levels_level(const nas__levels_space *s, const nas_point *p, int32_t layer);
double nas__levels_cost(const nas__levels_space *s, const nas_point *p, nas_level_cost kind);
/* nas__levels_exceeded - the first limit that the point exceeds; LEVEL_COSTS: none. */
nas_level_cost nas__levels_exceeded(const nas__levels_space *s, const nas_point *p);
static inline bool nas__levels_fit(const nas__levels_space *s, const nas_point *p) {
    return nas__levels_exceeded(s, p) == NAS_LEVEL_COSTS;
}

/* ---- levels_text.c ---- */
void nas__levels_format(const nas_space *space, const nas_point *p, nas_buf *out);
nas_status nas__levels_parse(nas_ctx *ctx, const nas_space *space, const char *text,
                             nas_point *out);

#endif
