/* graph_slice_internal.h - what graph_slice.c finds out and graph_slice_build.c makes of it. */
#ifndef NAS_COMPILER_GRAPH_SLICE_INTERNAL_H
#define NAS_COMPILER_GRAPH_SLICE_INTERNAL_H

#include "compiler/compiler_internal.h"

typedef struct nas__slice {
    nas_ctx *ctx;
    const nas_graph *in;
    int32_t n;           /* nodes */
    int32_t *first;      /* [n + 1] where the channels of a value begin in the arrays below */
    int32_t *same;       /* classes: a tree of channels, its root the first of them */
    double *value;       /* of a channel that is constant, else NAN */
    bool *pinned, *keep; /* of roots: must stay for the moment; for good */
    bool *gone;          /* of roots */
    nas_value *map;      /* of values to those of the new graph */
} nas__slice;

/* How the channels of a node have to do with those of its operands. */
typedef enum nas__slice_kind {
    NAS__SLICE_CONV, /* any with any, by its weights */
    NAS__SLICE_DEPTHWISE,
    NAS__SLICE_CHANNELWISE, /* each with the same one of each operand */
    NAS__SLICE_CONCAT,      /* one operand after the other */
    NAS__SLICE_CONSTANT,
    NAS__SLICE_MIXES /* all stay */
} nas__slice_kind;

nas__slice_kind nas__slice_kind_of(const nas__slice *s, nas_value v);
bool nas__slice_gone(nas__slice *s, nas_value v, int32_t c);
/* nas__slice_folds - does an input channel of this value add the same to every pixel? */
bool nas__slice_folds(const nas__slice *s, const nas_node *conv, double value);
/* nas__slice_build - the graph without the channels that are gone; verifies. graph_slice_build.c */
nas_status nas__slice_build(nas__slice *s, nas_graph **out);

#endif
