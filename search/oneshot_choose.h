/* oneshot_choose.h - which of the networks within a budget: the solver's, the best one with the same level everywhere, and what
 * moves between levels make of the better of the two.
 *
 * Losses of a table are those of single layers in a network whose other layers are dense. Two things make their sum miss: what a
 * layer loses depends on the others being compressed as well, and layers in turn make up for earlier ones. So
 *   1. moves: from the better start, each layer's next cheaper and next dearer level is tried in the compressed network; these
 *      differences are given to the same exact solver; its step is taken while the divergence falls, at most `rounds` times.
 *      A step that fails is tried again with a charge on each layer that moves;
 *   2. the last word: with layers in turn, both the best of these and the same level everywhere are compressed in turn, and
 *      the one that diverges less on the REWARD images stands.
 * The same level everywhere is within the budget, too: nothing worse than it, on REWARD images, is handed out. */
#ifndef NAS_SEARCH_ONESHOT_CHOOSE_H
#define NAS_SEARCH_ONESHOT_CHOOSE_H

#include "search/oneshot_budget.h"

typedef struct nas_oneshot_choose_options {
    double limit;
    int32_t rounds;  /* of moves; 0: none */
    size_t images;   /* REWARD images that starts and moves are judged by, at most */
    bool sequential; /* compressed in turn */
    nas_layer_options layer;
} nas_oneshot_choose_options;
/* 6 rounds, 512 images, in turn */
nas_oneshot_choose_options nas_oneshot_choose_options_default(void);

typedef enum nas_oneshot_way {
    NAS_ONESHOT_UNIFORM, /* the level of least divergence among those that fit, for all layers */
    NAS_ONESHOT_SOLVED,  /* least sum of the table's losses */
    NAS_ONESHOT_MOVED,   /* what moves made of the better of the two */
    NAS_ONESHOT_WAY_COUNT
} nas_oneshot_way;
const char *
nas_oneshot_way_name(nas_oneshot_way way); /* "same everywhere", "least sum", "after moves" */

typedef struct nas_oneshot_candidate {
    bool is_set;
    int32_t *choice;        /* [layers] level */
    nas_budget_total total; /* of the table; exact: of NAS_ONESHOT_SOLVED alone */
    double divergence;      /* of layers for themselves, on `images` REWARD images */
    bool has_turn;          /* compressed in turn */
    bool turn_misses;       /* its zeros by rounding are fewer in turn: it would exceed the limit */
    double turn_cost;       /* of `graph` */
    double turn_divergence; /* on all REWARD images; where turn_misses, of layers for themselves */
    nas_graph *graph;       /* with has_turn: the network it stands for */
    nas_layer_result *results; /* [layers] of `graph`, with has_turn */
} nas_oneshot_candidate;

typedef struct nas_oneshot_choice {
    nas_oneshot_candidate candidates[NAS_ONESHOT_WAY_COUNT];
    nas_oneshot_way best; /* its graph and results are set */
    int32_t rounds;       /* steps that were taken */
} nas_oneshot_choice;

/* nas_oneshot_choose - deterministic. Errors: those of nas_budget_solve and of compressing. */
nas_status nas_oneshot_choose(nas_ctx *ctx, nas_oneshot *o, const nas_oneshot_table *table,
                              const nas_oneshot_choose_options *options, nas_oneshot_choice *out);
/* nas_oneshot_choose_finish - the last word once more, with other options->sequential: what nas_oneshot_choose with them would
 * give, without its moves. choice: of the same table and limit. On failure nothing stands for choice->best. */
nas_status nas_oneshot_choose_finish(nas_ctx *ctx, nas_oneshot *o, const nas_oneshot_table *table,
                                     const nas_oneshot_choose_options *options,
                                     nas_oneshot_choice *choice);
void nas_oneshot_choice_deinit(nas_oneshot_choice *choice);

#endif
