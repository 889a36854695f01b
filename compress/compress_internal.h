/* compress_internal.h - shared inside compress/ only. */
#ifndef NAS_COMPRESS_COMPRESS_INTERNAL_H
#define NAS_COMPRESS_COMPRESS_INTERNAL_H

#include "compress/compress.h"

struct nas_channels {
    nas_arena *arena;
    int32_t n_values, n_classes, n_groups;
    int32_t **of; /* [value][channel] -> class or NAS_CLASS_FIXED */
    nas_channel_group *groups;
    int32_t *group_of; /* [class] */
};

bool nas__is_depthwise(const nas_graph *g, const nas_node *node);
/* nas__kept_channels - positions of a value's channels that stay, ascending; returns how many. to may be NULL. */
int32_t nas__kept_channels(const nas_channels *channels, const nas_graph *graph, nas_value v,
                           const bool *keep, int32_t *to);

#endif
