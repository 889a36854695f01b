/* sparsity.h - the one description of what a compressed layer leaves out: which weights stand or fall together, how many
 * groups stay, how the rest is stored, and the projection that makes such a mask of trained weights.
 *
 * A weight tensor is [O,KH,KW,I]. A pattern cuts it into groups; a group is kept or dropped as a whole:
 *   filter        all weights of an output channel
 *   channel       all weights of an input channel
 *   1xN           n neighbouring outputs, one input channel, all taps (Lin et al., arXiv:2105.14713). With `rearrange`
 *                 the neighbours are those of the outputs sorted by their sum of magnitudes, largest first
 *   N:M           of each `group` neighbouring input channels `keep` stay, tap by tap; `outputs` neighbouring outputs
 *                 share the choice. Of a rest of r channels keep*r/group stay, rounded up. No rate
 *   block         `outputs` x `inputs` channels, all taps
 *   punched       `outputs` x `inputs` channels, one tap (block-punched: Gong et al., arXiv:2111.11581)
 *   pattern       3x3 alone: each kernel keeps `entries` of its 9 taps, of four as one of eight shapes around the centre,
 *                 else the largest; then whole kernels go at `rate` (connectivity). `outputs` outputs share both
 *   periodic      3x3 alone: input channels c, c + period, ... keep the same `entries` taps in every output (after Heo et
 *                 al., arXiv:2207.00068). No rate
 *   unstructured  one weight
 *   complementary sets of `outputs` neighbouring outputs keep disjoint weights, so that a set could be laid over each other as
 *                 one dense filter: of each run of as many inputs of a tap every output keeps one, no two the same; of a
 *                 rest, at most one. No rate: 1/outputs stays (Hunter et al., arXiv:2112.13896, the partitioned form)
 * What is short of a whole group at the end of an axis is a smaller group.
 *
 * Importance of a group: its sum of magnitudes for 1xN (that paper), of squares for the others: the projection is then the
 * nearest such tensor (complementary: by trying all of a run). Exactly floor(rate*groups) groups are dropped, the smallest; of equal ones the later first.
 * Deterministic. Layer 1: includes core and graph.h only. */
#ifndef NAS_IR_SPARSITY_H
#define NAS_IR_SPARSITY_H

#include "ir/graph.h"

typedef enum nas_sparsity_pattern {
    NAS_SPARSITY_FILTER,
    NAS_SPARSITY_CHANNEL,
    NAS_SPARSITY_1XN,
    NAS_SPARSITY_N_OF_M,
    NAS_SPARSITY_BLOCK,
    NAS_SPARSITY_PUNCHED,
    NAS_SPARSITY_PATTERN,
    NAS_SPARSITY_PERIODIC,
    NAS_SPARSITY_UNSTRUCTURED,
    NAS_SPARSITY_COMPLEMENTARY,
    NAS_SPARSITY_PATTERN_COUNT
} nas_sparsity_pattern;
/* nas_sparsity_pattern_name - as above; _find: PATTERN_COUNT when there is none of that name. */
const char *nas_sparsity_pattern_name(nas_sparsity_pattern pattern);
nas_sparsity_pattern nas_sparsity_pattern_find(const char *name);

/* Fields that a pattern does not use are ignored. */
typedef struct nas_sparsity {
    nas_sparsity_pattern pattern;
    double rate;         /* share of the groups that is left out, 0..1 */
    int32_t n;           /* 1XN: 2, 4, 8, 16 or 32 */
    int32_t keep, group; /* N_OF_M: 1 <= keep <= group <= 32 */
    int32_t outputs,
        inputs;      /* N_OF_M, BLOCK, PUNCHED, PATTERN: 1..64; outputs of COMPLEMENTARY: 2..8 */
    int32_t entries; /* PATTERN, PERIODIC: 1..8 */
    int32_t period;  /* PERIODIC: 1..64 */
    bool rearrange;  /* 1XN */
} nas_sparsity;

/* nas_sparsity_short - the pattern without its rate: "1x4", "1x4r" (rearranged), "N:8x4" (group x outputs), "block4x4",
 * "punched8x8" (outputs x inputs), "complementary4" (outputs), else its name: how tables of measurements call it. */
enum { NAS_SPARSITY_SHORT_MAX = 32 };
void nas_sparsity_short(const nas_sparsity *s, char out[NAS_SPARSITY_SHORT_MAX]);

enum { NAS_SPARSITY_SET_MAX = 8 }; /* outputs of COMPLEMENTARY */
/* nas_sparsity_has_rate - false for N_OF_M, PERIODIC and COMPLEMENTARY, whose other numbers say how much stays. */
bool nas_sparsity_has_rate(nas_sparsity_pattern pattern);

/* nas_sparsity_default - n 4, keep 2 of group 4, outputs and inputs 4 (PATTERN: 1), entries 4, period 4, rate 0. */
nas_sparsity nas_sparsity_default(nas_sparsity_pattern pattern);

/* nas_sparsity_check - is the pattern legal for a convolution of these dims [O,KH,KW,I/groups]?
 * Errors: RANGE (a number outside its bounds), UNSUPPORTED (grouped convolutions; 3x3 patterns elsewhere). */
nas_status nas_sparsity_check(nas_ctx *ctx, const nas_sparsity *s, const int32_t dims[4],
                              int32_t groups);
/* nas_sparsity_mask - the projection: kept[O*KH*KW*I] is 1 where a weight stays, else 0. Errors: as above, NOMEM. */
nas_status nas_sparsity_mask(nas_ctx *ctx, const nas_sparsity *s, const float *weight,
                             const int32_t dims[4], uint8_t *kept);
/* nas_sparsity_apply - sets the weights of CONV `v` that the pattern leaves out to zero. Errors name the layer: as above,
 * UNSUPPORTED (not a CONV), INVALID (no weights). */
nas_status nas_sparsity_apply(nas_ctx *ctx, nas_graph *graph, nas_value v, const nas_sparsity *s);

/* Bytes of one layer's weights, `bits` of each. */
typedef struct nas_sparsity_bytes {
    uint64_t dense;
    uint64_t bitmask; /* one bit a weight, and the weights that are not zero */
    uint64_t
        lists; /* an index of 16 bits (32 where a sum has more than 65536 steps) for each kept group of `outputs`
                     * weights, their weights, and where the list of each group of outputs begins, 32 bits */
    uint64_t packed; /* COMPLEMENTARY: nas_sparsity_packed_bytes; 0: not that pattern */
    uint64_t kept;   /* weights that are not zero */
} nas_sparsity_bytes;
/* nas_sparsity_storage - of a mask, when `outputs` neighbouring outputs share one list. bits 1..32, outputs >= 1. */
nas_sparsity_bytes nas_sparsity_storage(const uint8_t *kept, const int32_t dims[4], int32_t outputs,
                                        int32_t bits);
/* nas_sparsity_pattern_storage - the same of a mask that `s` made: as many outputs share a list as the pattern says. */
nas_sparsity_bytes nas_sparsity_pattern_storage(const nas_sparsity *s, const uint8_t *kept,
                                                const int32_t dims[4], int32_t bits);
/* nas_sparsity_packed_bytes - of COMPLEMENTARY sets of `set` outputs laid over each other: a weight and the number of its
 * owner for each step of the sum. */
uint64_t nas_sparsity_packed_bytes(const int32_t dims[4], int32_t set, int32_t bits);

#endif
