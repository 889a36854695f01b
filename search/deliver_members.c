/* deliver_members.c - which networks --deliver asks for. */
#include "search/deliver_members.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DIGITS_MAX = 9 };

static bool all(const char *wanted) {
    return strcmp(wanted, "front") == 0;
}

bool nas__deliver_syntax(const char *wanted) {
    if (all(wanted)) return true;
    size_t digits = 0;
    for (const char *c = wanted;; c++) {
        if (isdigit((unsigned char)*c) != 0) {
            if (++digits > DIGITS_MAX) return false;
            continue;
        }
        if ((*c != ',' && *c != '\0') || digits == 0) return false;
        if (*c == '\0') return true;
        digits = 0;
    }
}

static nas_status no_member(nas_ctx *ctx, const nas__members *m, size_t trial) {
    nas_buf text = {0};
    for (size_t i = 0; i < m->n_trials; i++) {
        if (m->is_member(m->study, i)) nas_buf_printf(&text, "%s%zu", text.len > 0 ? ", " : "", i);
    }
    nas_status status = nas_buf_status(ctx, &text);
    if (status == NAS_OK)
        status = nas_fail(ctx, NAS_ERR_INVALID,
                          "--deliver: trial %zu is not in the final front, only its networks have "
                          "final weights: %s",
                          trial, text.len > 0 ? text.data : "none");
    nas_buf_deinit(&text);
    return status;
}

static nas_status write_member(nas_ctx *ctx, const nas__members *m, size_t trial) {
    char folder[32];
    (void)snprintf(folder, sizeof folder, "trial-%zu", trial);
    const nas_status status = m->write(m->study, trial, folder);
    if (status == NAS_OK) nas_log(ctx, NAS_LOG_INFO, "trial %zu -> %s/%s", trial, m->dir, folder);
    return status;
}

/* Each number of the list, in turn: looked up, or written. */
static nas_status each(nas_ctx *ctx, const char *wanted, const nas__members *m, bool write) {
    nas_status status = NAS_OK;
    for (const char *c = wanted; c != NULL && status == NAS_OK; c = strchr(c, ',')) {
        if (*c == ',') c++;
        const size_t trial = (size_t)strtoull(c, NULL, 10);
        if (write)
            status = write_member(ctx, m, trial);
        else if (trial >= m->n_trials || !m->is_member(m->study, trial))
            status = no_member(ctx, m, trial);
    }
    return status;
}

nas_status nas__deliver_members(nas_ctx *ctx, const char *wanted, const nas__members *m) {
    if (wanted == NULL) return NAS_OK;
    if (!all(wanted)) {
        const nas_status status = each(ctx, wanted, m, false);
        return status == NAS_OK ? each(ctx, wanted, m, true) : status;
    }
    nas_status status = NAS_OK;
    for (size_t i = 0; i < m->n_trials && status == NAS_OK; i++) {
        if (m->is_member(m->study, i)) status = write_member(ctx, m, i);
    }
    return status;
}
