/* compress_choices.h - the lists of a config that say what a layer may become: precisions, patterns, rates. Shared inside search/
 * only. */
#ifndef NAS_SEARCH_COMPRESS_CHOICES_H
#define NAS_SEARCH_COMPRESS_CHOICES_H

#include "ir/sparsity.h"
#include "search/config.h"

enum { NAS__CHOICES_MAX = 16, NAS__PATTERN_TEXT_MAX = 24 };

typedef struct nas__pattern_choice {
    char text[NAS__PATTERN_TEXT_MAX]; /* as the config has it */
    nas_sparsity sparsity;            /* rate not set */
    bool has_rate;
} nas__pattern_choice;

typedef struct nas__choices {
    int32_t n_bits, bits[NAS__CHOICES_MAX]; /* rising; 32: floats */
    int32_t n_patterns;
    nas__pattern_choice patterns[NAS__CHOICES_MAX];
    int32_t n_rates;
    double rates[NAS__CHOICES_MAX];         /* rising, above 0 and below 1 */
    int32_t n_acts, acts[NAS__CHOICES_MAX]; /* bits of activations, rising; none: floats */
} nas__choices;

/* nas__space_has_levels - "bits", "scheme", "mixed" or "joint"; the others: what varies in it. */
bool nas__space_has_levels(const char *space);
bool nas__space_has_channels(const char *space);
bool nas__space_has_bits(const char *space);
bool nas__space_has_patterns(const char *space);

/* nas__choices_bits, _patterns, _rates - fill their part from the text of a key. INVALID says what is wrong with an item. */
nas_status nas__choices_bits(nas_ctx *ctx, const char *text, nas__choices *out);
nas_status nas__choices_patterns(nas_ctx *ctx, const char *text, nas__choices *out);
nas_status nas__choices_rates(nas_ctx *ctx, const char *text, nas__choices *out);
/* nas__choices_acts - bits of activations, 2 to 8 each. */
nas_status nas__choices_acts(nas_ctx *ctx, const char *text, nas__choices *out);
/* nas__has_acts - activations are integers. */
bool nas__has_acts(const nas_config *config);
/* nas__choices_read - what the config's space asks for: other lists stay empty. */
nas_status nas__choices_read(nas_ctx *ctx, const nas_config *config, nas__choices *out);

#endif
