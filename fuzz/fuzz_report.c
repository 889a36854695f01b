/* fuzz_report.c - libFuzzer target: any bytes as an agent's report of a run. What is accepted must be consistent: a
 * median inside its interval, finite numbers, as many samples as are said. */
#include "latency/device_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    nas_buf text = {0};
    nas__run run = {0};
    nas_buf_append(&text, data, size);
    if (nas__run_parse(NULL, &text, &run) == NAS_OK) {
        const nas_measurement *m = &run.m;
        if (strcmp(run.state, "done") == 0) {
            if (!(m->p50_lo_us <= m->p50_us && m->p50_us <= m->p50_hi_us)) abort();
            if (!isfinite(m->p50_us) || !isfinite(m->energy_mj) || !isfinite(m->rate_per_s))
                abort();
            if (m->n_samples < 1 || m->n_samples > (size_t)m->batches || run.report == NULL)
                abort();
        }
        nas__run_deinit(&run);
    }
    nas_buf_deinit(&text);
    return 0;
}
