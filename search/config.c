/* config.c - reads a study's config from end to end; see config_internal.h for the steps. */
#include "search/config_internal.h"

#include <stdio.h>
#include <string.h>

/* First problem for the context's message; all of them go to `errors`. */
static nas_status report(nas__config_doc *doc, nas_status status, nas_buf *errors) {
    nas_buf lines = {0};
    nas__config_problems_print(doc, &lines);
    nas_status written = doc->failed ? NAS_ERR_NOMEM : nas_buf_status(doc->ctx, &lines);
    if (written == NAS_OK && errors != NULL) {
        nas_buf_puts(errors, lines.data);
        written = nas_buf_status(doc->ctx, errors);
    }
    if (written == NAS_OK) {
        written = nas_fail(doc->ctx, status, "%s: %zu problem%s, the first: %.*s", doc->name,
                           doc->n_problems, doc->n_problems == 1 ? "" : "s",
                           (int)strcspn(lines.data, "\n"), lines.data);
    }
    nas_buf_deinit(&lines);
    return written;
}

static nas_status read_document(nas__config_doc *doc, const char *text, size_t len,
                                const char *const *overrides, size_t n_overrides) {
    nas_status status = nas__config_doc_read(doc, text, len);
    for (size_t i = 0; i < n_overrides && status == NAS_OK; i++) {
        status = nas__config_doc_override(doc, overrides[i]);
    }
    return status;
}

static nas_status parse_into(nas__config_doc *doc, const char *text, size_t len,
                             const char *const *overrides, size_t n_overrides, nas_config *config,
                             nas_buf *errors) {
    nas_status status = read_document(doc, text, len, overrides, n_overrides);
    if (status == NAS_ERR_PARSE) return report(doc, status, errors);
    if (status != NAS_OK) return status;
    nas_config_default(config);
    nas__config_assign(doc, config);
    nas__config_classify(doc, config);
    nas__config_validate(doc, config);
    if (doc->failed) return NAS_ERR_NOMEM;
    if (doc->n_problems > 0) return report(doc, NAS_ERR_INVALID, errors);
    return NAS_OK;
}

nas_status nas_config_parse(nas_ctx *ctx, const char *name, const char *text, size_t len,
                            const char *const *overrides, size_t n_overrides, nas_config *out,
                            nas_buf *json, nas_buf *errors) {
    if (len > NAS__CONFIG_BYTES_MAX) {
        return nas_fail(ctx, NAS_ERR_RANGE, "%s: %zu bytes, a config has at most %d", name, len,
                        NAS__CONFIG_BYTES_MAX);
    }
    nas__config_doc doc;
    nas_status status = nas__config_doc_init(ctx, name, &doc);
    if (status != NAS_OK) return status;
    nas_config *config = nas_alloc_array(ctx, 1, sizeof *config);
    if (config == NULL) status = NAS_ERR_NOMEM;
    if (status == NAS_OK)
        status = parse_into(&doc, text, len, overrides, n_overrides, config, errors);
    if (status == NAS_OK && json != NULL) status = nas__config_json(ctx, config, json);
    if (status == NAS_OK && out != NULL) *out = *config;
    nas_free(config);
    nas__config_doc_deinit(&doc);
    return status;
}

/* A file that cannot be read is one problem of the config, too. */
static nas_status unreadable(nas_ctx *ctx, nas_status status, nas_buf *errors) {
    if (errors != NULL) nas_buf_printf(errors, "%s\n", nas_ctx_message(ctx));
    return status;
}

nas_status nas_config_load(nas_ctx *ctx, const nas_config_source *source, nas_config *out,
                           nas_buf *toml, nas_buf *json, nas_buf *errors) {
    nas_buf text = {0};
    nas_status status = nas_file_read(ctx, source->path, NAS__CONFIG_BYTES_MAX, &text);
    if (status != NAS_OK) return unreadable(ctx, nas_wrap(ctx, status, "config"), errors);
    status = nas_config_parse(ctx, source->path, text.data == NULL ? "" : text.data, text.len,
                              source->overrides, source->n_overrides, out, json, errors);
    if (status == NAS_OK && toml != NULL) {
        nas_buf_append(toml, text.data, text.len);
        status = nas_buf_status(ctx, toml);
    }
    nas_buf_deinit(&text);
    return status;
}
