/* search.h - a study: the only place where the modules meet.
 *
 * A run goes through phases, each resumable: data, train (supernet, FSRCNN baseline), baselines (measured), search
 * (ask, build and score in parallel, measure alone, tell), finetune (front members), final (re-timed, scored by the
 * timed binary on REPORT images), report. What is finished is in study.db or in a checkpoint file; starting the same
 * command again continues from there.
 *
 * Folder of a run: study.db, config.toml, supernet.weights, fsrcnn.weights, finetune/<trial>.weights, front.csv, best/,
 * trial-<number>/ (of --deliver). */
#ifndef NAS_SEARCH_SEARCH_H
#define NAS_SEARCH_SEARCH_H

#include "search/config.h"

typedef struct nas_study_options {
    const nas_config *config;
    const char *toml;        /* text of the config file, stored with the study */
    const char *json;        /* effective config (nas_config_load): what a resume compares */
    const char *config_path; /* for messages */
    const char *agent_path;  /* nas-agent program for "local"; NULL = beside the running program */
    const char *format;      /* "table", "json", "csv", "value" */
    const char *deliver;     /* written besides the best: "front", or "34,14"; NULL = none */
    bool fresh;              /* move an old run aside and start over */
    bool quiet;              /* no progress line */
} nas_study_options;

/* nas_study_run - runs or resumes the study to its report on stdout. *feasible: some trial satisfies all constraints.
 * Errors: DB (locked, newer schema, config changed: the message lists the keys and names --fresh), DEVICE, NET,
 * TOOLCHAIN, IO (disk), NOTFOUND (no usable data), CANCELLED (resumable). Nothing finished is lost on any of them. */
nas_status nas_study_run(nas_ctx *ctx, const nas_study_options *options, bool *feasible);

/* nas_study_plan - what --dry-run prints on stdout: space size, phases, what each trial will cost. Writes no file. */
nas_status nas_study_plan(nas_ctx *ctx, const nas_study_options *options);

#endif
