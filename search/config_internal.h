/* config_internal.h - what the config files of this folder share: the document as read, its problems, the key table.
 *
 * A config goes through: config_toml.cc (text -> stream of values), config_document.c (stream and overrides -> entries
 * with positions), config_assign.c (entries -> fields, each checked against its row of the key table),
 * config_validate.c (rules between keys), config_json.c (fields -> effective JSON). Each step records problems and
 * goes on; config.c decides at the end. */
#ifndef NAS_SEARCH_CONFIG_INTERNAL_H
#define NAS_SEARCH_CONFIG_INTERNAL_H

#include "search/config.h"
#include "search/config_toml.h"

enum { NAS__CONFIG_BYTES_MAX = 1 << 20, NAS__PROBLEMS_SHOWN_MAX = 100 };

/* ---- the document ---------------------------------------------------------------------------------------------- */

/* Line 0 is the command line: positions of overrides. */
typedef struct nas__config_place {
    int32_t line, column;
} nas__config_place;

typedef struct nas__config_entry {
    const char *path;
    nas__config_place key;
    nas__toml_value value; /* text and items live in the document's arena */
    bool dropped;          /* replaced by an override */
} nas__config_entry;

typedef struct nas__config_problem {
    nas__config_place place;
    const char *text; /* "key: problem" */
} nas__config_problem;

typedef struct nas__config_doc {
    nas_ctx *ctx;
    nas_arena *arena;
    const char *name; /* of the file, for messages */
    nas__config_entry *entries;
    size_t n_entries, cap_entries;
    nas__config_problem *problems;
    size_t n_problems, cap_problems;
    bool failed; /* out of memory: the message is in ctx */
} nas__config_doc;

nas_status nas__config_doc_init(nas_ctx *ctx, const char *name, nas__config_doc *out);
void nas__config_doc_deinit(nas__config_doc *doc);
/* nas__config_doc_read - adds the entries of a TOML text. A syntax error is a problem and gives PARSE. */
nas_status nas__config_doc_read(nas__config_doc *doc, const char *text, size_t len);
/* nas__config_doc_override - applies one "key=value"; a malformed one is a problem, only NOMEM is a failure. */
nas_status nas__config_doc_override(nas__config_doc *doc, const char *assignment);
/* nas__config_doc_devices - how many [[device]] tables there are. */
int32_t nas__config_doc_devices(const nas__config_doc *doc);
/* nas__config_place_of - where a key stands; its section when the key is absent; 1:1 when that is absent too. */
nas__config_place nas__config_place_of(const nas__config_doc *doc, const char *path);
bool nas__config_has(const nas__config_doc *doc, const char *path);
/* nas__config_problem_add - records "path: text" at a place; on no memory sets doc->failed. */
void nas__config_problem_add(nas__config_doc *doc, nas__config_place place, const char *path,
                             const char *format, ...) __attribute__((format(printf, 4, 5)));
/* nas__config_problems_print - all problems, by position, one line each. */
void nas__config_problems_print(nas__config_doc *doc, nas_buf *out);
/* nas__config_shown - text fit for a message: control bytes escaped, cut after 60 bytes; in the document's arena. */
const char *nas__config_shown(nas__config_doc *doc, const char *text);

/* ---- the key table --------------------------------------------------------------------------------------------- */

typedef enum nas__key_type {
    NAS__KEY_TEXT,
    NAS__KEY_INTEGER, /* int32_t, int64_t or uint64_t by `size` and `lo` */
    NAS__KEY_NUMBER,  /* double */
    NAS__KEY_FLAG,
    NAS__KEY_RANGE,     /* nas_range from [min, max, step] */
    NAS__KEY_KERNELS,   /* list of odd integers, count at `count_offset` */
    NAS__KEY_FREQUENCY, /* "max", or a list of MHz; kept as text "1800,2400" */
    NAS__KEY_METRICS,   /* list of metric names */
    NAS__KEY_BOUND      /* text or list of texts: bounds on the metric that names the key */
} nas__key_type;

typedef struct nas__config_key {
    const char *path; /* "eval.batch"; keys of devices are "device.threads" */
    nas__key_type type;
    size_t offset, size, count_offset; /* in nas_config, or in nas_config_device for "device." */
    double lo, hi;                     /* inclusive; of list elements for ranges and kernels */
    bool lo_open;                      /* lo itself is not allowed */
    const char *unit;                  /* "" = none */
    const char *choices;               /* TEXT: "a|b|c", NULL = free */
    const char *shown_default;         /* when the stored default is not what a reader needs */
    const char *doc;
} nas__config_key;

typedef struct nas__config_section {
    const char *name, *doc;
} nas__config_section;

const nas__config_section *nas__config_sections(size_t *n);
const nas__config_key *nas__config_keys(size_t *n);
/* nas__config_key_find - by table path ("device.threads", not "device[0].threads"); NULL when unknown. */
const nas__config_key *nas__config_key_find(const char *path);
bool nas__config_is_section(const char *name, size_t len);
/* nas__config_nearest_* - the closest legal name, or NULL when nothing is near. */
const char *nas__config_nearest_key(const char *path);
const char *nas__config_nearest_section(const char *name);
const char *nas__config_nearest_metric(const char *name);
/* nas__config_device_default - one [[device]] with nothing given. */
nas_config_device nas__config_device_default(void);
bool nas__config_is_device_key(const nas__config_key *key);
/* nas__config_range_text - "1..64", "> 0, at most 1", "sr" ...: the legal values of a key. */
void nas__config_range_text(const nas__config_key *key, nas_buf *out);
/* nas__config_value_json - the value of a key as JSON; base is the nas_config or the nas_config_device. */
void nas__config_value_json(const nas__config_key *key, const nas_config *config, const void *base,
                            nas_json *j);
bool nas__config_is_plain_name(const char *name); /* letters, digits, '.', '_', '-' */
/* nas__config_bound_text - "<= 33", ">= 30.5", "<= 60%". */
void nas__config_bound_text(const nas_constraint *c, nas_buf *out);

/* ---- steps ----------------------------------------------------------------------------------------------------- */

void nas__config_assign(nas__config_doc *doc, nas_config *config);
/* nas__config_bounds - parses the bounds of one constraint key, `name` its metric, into config; contradictions are
 * checked later. The queues of the config are known by now. */
void nas__config_bounds(nas__config_doc *doc, const nas__config_entry *entry, const char *name,
                        nas_config *config);
void nas__config_metrics(nas__config_doc *doc, const nas__config_entry *entry, bool maximise,
                         nas_config *config);
/* nas__config_classify - defaults and rules of classifiers, and what the other tasks do not know of them. */
void nas__config_classify(nas__config_doc *doc, nas_config *config);
/* nas__config_devices_validate - names, pools and ways to measure (config_devices.c). */
void nas__config_devices_validate(nas__config_doc *doc, const nas_config *config);
void nas__config_validate(nas__config_doc *doc, const nas_config *config);
nas_status nas__config_json(nas_ctx *ctx, const nas_config *config, nas_buf *out);

#endif
