/* values.c - from database columns to metrics, constraint violation, objectives and hypervolume. */
#include "search/study_internal.h"

#include <math.h>

static bool from_double(nas_opt_double v, double factor, double *out) {
    if (v.is_set) *out = v.value * factor;
    return v.is_set;
}

static bool from_i64(nas_opt_i64 v, double *out) {
    if (v.is_set) *out = (double)v.value;
    return v.is_set;
}

static bool scaled(nas_opt_i64 v, double factor, double *out) {
    if (v.is_set) *out = (double)v.value * factor;
    return v.is_set;
}

/* The far ends of a noisy latency; its 90th percentile is as uncertain as its median. */
static bool from_latency(const nas__latency *l, bool p90, nas__reading reading, double *out) {
    if (!l->is_set) return false;
    double us = p90 ? l->p90_us : l->p50_us;
    if (l->noisy && reading == NAS__UPPER) us *= fmax(l->p50_hi_us / l->p50_us, 1);
    if (l->noisy && reading == NAS__LOWER) us *= fmin(l->p50_lo_us / l->p50_us, 1);
    *out = us * 1e-3;
    return true;
}

bool nas__metric_value(const nas__figures *figures, nas_metric metric, int32_t queue,
                       nas__reading reading, double *out) {
    const nas_db_values *values = &figures->values;
    switch (metric) {
    case NAS_METRIC_PSNR_Y: return from_double(values->psnr_y_db, 1, out);
    case NAS_METRIC_SSIM_Y: return from_double(values->ssim_y, 1, out);
    case NAS_METRIC_LATENCY_P50_MS:
        return from_latency(&figures->latency[queue], false, reading, out);
    case NAS_METRIC_LATENCY_P90_MS:
        return from_latency(&figures->latency[queue], true, reading, out);
    case NAS_METRIC_MACS: return from_i64(values->macs, out);
    case NAS_METRIC_PARAMS: return from_i64(values->params, out);
    case NAS_METRIC_PEAK_ACTIVATION_BYTES: return from_i64(values->peak_activation_bytes, out);
    case NAS_METRIC_WEIGHT_BYTES: return scaled(values->params, NAS_WEIGHT_BYTES_EACH, out);
    case NAS_METRIC_BOPS: return scaled(values->macs, NAS_BOPS_EACH, out);
    case NAS_METRIC_TOP1: /* of classifiers: see compress_trial.c */
    case NAS_METRIC_COUNT: break;
    }
    return false;
}

bool nas__constraint_bound(const nas__study *s, const nas_constraint *constraint, double *bound) {
    if (!constraint->is_percent) {
        *bound = constraint->bound;
        return true;
    }
    double base = 0;
    if (!nas__metric_value(&s->baseline, constraint->metric, constraint->queue, NAS__POINT, &base))
        return false;
    *bound = base * constraint->bound / 100.0;
    return true;
}

double nas__violation(const nas__study *s, const nas__figures *figures) {
    double sum = 0;
    for (int32_t i = 0; i < s->config->n_constraints; i++) {
        const nas_constraint *constraint = &s->config->constraints[i];
        double bound = 0, value = 0;
        const nas__reading reading = constraint->at_most ? NAS__UPPER : NAS__LOWER;
        if (!nas__constraint_bound(s, constraint, &bound) ||
            !nas__metric_value(figures, constraint->metric, constraint->queue, reading, &value)) {
            sum += 1;
            continue;
        }
        const double excess = constraint->at_most ? value - bound : bound - value;
        if (excess > 0) sum += excess / fmax(fabs(bound), 1e-12);
    }
    return sum;
}

bool nas__objective_values(const nas__study *s, const nas__figures *figures,
                           double out[NAS_OBJECTIVES_MAX]) {
    for (int32_t i = 0; i < s->config->n_objectives; i++) {
        const nas_objective *o = &s->config->objectives[i];
        double value = 0;
        if (!nas__metric_value(figures, o->metric, o->queue, NAS__UPPER, &value) ||
            !isfinite(value))
            return false;
        out[i] = nas_metric_maximise(o->metric) ? -value : value;
    }
    return true;
}

double nas__hypervolume(const nas__study *s) {
    double reference[NAS_OBJECTIVES_MAX] = {0};
    if (s->config->n_objectives < 2 || s->config->n_objectives > 3) return NAN;
    for (int32_t i = 0; i < s->config->n_objectives; i++) {
        const nas_metric metric = s->config->objectives[i].metric;
        /* Worst point of interest: bicubic for quality, the full-width supernet for every cost. */
        switch (metric) {
        case NAS_METRIC_PSNR_Y: reference[i] = -s->bicubic_select.psnr_y_db; break;
        case NAS_METRIC_SSIM_Y: reference[i] = -s->bicubic_select.ssim_y; break;
        case NAS_METRIC_LATENCY_P50_MS:
        case NAS_METRIC_LATENCY_P90_MS:
        case NAS_METRIC_MACS:
        case NAS_METRIC_PARAMS:
        case NAS_METRIC_PEAK_ACTIVATION_BYTES:
        case NAS_METRIC_WEIGHT_BYTES:
        case NAS_METRIC_BOPS:
            if (!nas__metric_value(&s->baseline, metric, s->config->objectives[i].queue, NAS__POINT,
                                   &reference[i]))
                return NAN;
            break;
        case NAS_METRIC_TOP1:
        case NAS_METRIC_COUNT: return NAN;
        }
    }
    return nas_front_hypervolume(s->front, reference);
}
