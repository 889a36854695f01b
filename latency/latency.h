/* latency.h - measured latency from devices, and predicted latency: two things that are never mixed.
 *
 * Measuring: a device is an agent reached over HTTP (a private one for "local"); the artifact travels as path + hash.
 * Protocol of measurement: device-agent/protocol.h. Predicting: features of a graph -> latency with an interval.
 * Layer 3: includes core, ir, device-agent/protocol.h. curl, jansson and GSL stay in the .c files. */
#ifndef NAS_LATENCY_LATENCY_H
#define NAS_LATENCY_LATENCY_H

#include "device-agent/protocol.h"
#include "ir/graph.h"

/* ---- statistics ------------------------------------------------------------------------------------------------ */

typedef struct nas_sample_stats {
    size_t n;
    double median, median_lo, median_hi; /* 95 % interval by order statistics */
    double p10, p90, min, max, mad;      /* mad: median absolute deviation, unscaled */
} nas_sample_stats;

/* nas_sample_stats_of - n >= 1 finite samples, any order. INVALID otherwise. */
nas_status nas_sample_stats_of(nas_ctx *ctx, const double *samples, size_t n,
                               nas_sample_stats *out);

/* ---- devices --------------------------------------------------------------------------------------------------- */

typedef enum nas_device_mode {
    NAS_DEVICE_BURST,    /* a cool device, short runs: what one inference now and then costs */
    NAS_DEVICE_SUSTAINED /* back to back for minutes, the last third counts */
} nas_device_mode;

typedef struct nas_device_options {
    const char *name;    /* how the study calls it */
    const char *connect; /* "local", "http://host:port", "adb:SERIAL", "adb:*" (any one phone that
                                nobody else holds), or "simulated" (see below) */
    const char *agent_path; /* local: the nas-agent program; NULL = beside the running program */
    const char *agents_dir; /* adb: folder of static agents nas-agent-<arch>; NULL = "agents" beside
                                the folder of the running program */
    const char *key_file;   /* http: the agent's key */
    const char *work_dir;   /* local: agent's cache and key live here; adb: the session's key */
    int32_t threads;        /* of the measured program */
    const char *cores;      /* "0,1", "0-3", "big", "little"; "" = no pinning */
    nas_device_mode mode;
    int32_t sustained_s; /* length of a sustained measurement, 10..3600 */
    const char
        *frequency; /* "" or NULL = as found, "max", or MHz of each cluster from the smallest to the
                                largest, "1800,2400"; pinned where permitted, read back and recorded */
    double max_temperature_c; /* no run starts above it; 0 = no limit of its own */
    int32_t lease_ms; /* how long a shared agent stays ours after we died; 0 = two minutes */
} nas_device_options;

/* nas_device_options_default - "local", one thread, no pinning, burst, frequency as found. */
nas_device_options nas_device_options_default(void);

typedef struct nas_device nas_device;

/* nas_device_open - connects, checks protocol version and signature; a phone gets the agent of its processor, when
 * its own differs, and a fresh key. "simulated" ("simulated:2.5": so many times as slow) is a deterministic analytic latency (roofline of a nominal CPU over
 * the graph) for tests and dry runs: it times nothing, and everything it reports is labelled simulated.
 * Errors: NET (lost: unplugged, offline, nobody answers; opening again may help), DEVICE (a person has to act, the
 * message says what to do), INVALID, TIMEOUT, CANCELLED. */
nas_status nas_device_open(nas_ctx *ctx, const nas_device_options *options, nas_device **out);
void nas_device_close(nas_device *device); /* stops a private agent and one that was deployed */
const char *nas_device_name(const nas_device *device);
/* nas_device_alive - does the agent still answer? NET when the device is lost (nas_device_reopen may bring it back),
 * DEVICE when somebody answers who is not our agent: tells a failed program from a lost device. */
nas_status nas_device_alive(nas_ctx *ctx, nas_device *device);
/* nas_device_reopen - a fresh agent session on the same device: the old one is ended, its runs count for nothing. Tries
 * again with growing pauses while the device is lost. The handle stays valid whatever happens and may be reopened again.
 * deadline_ms    for all tries together, >= 0; 0 tries once
 * Errors: NET or TIMEOUT (still lost at the deadline), DEVICE (failed: a person has to act, or another device answers
 * there than before), CANCELLED. */
nas_status nas_device_reopen(nas_ctx *ctx, nas_device *device, int64_t deadline_ms);
/* nas_device_is_simulated - "simulated", or a device whose clock is virtual: no number of it is a measured one. */
bool nas_device_is_simulated(const nas_device *device);
/* nas_device_is_local - shares this machine's CPUs: nothing else of ours may run while it measures. */
bool nas_device_is_local(const nas_device *device);
/* nas_device_info_json - the agent's /v1/info document; borrowed until the device is reopened or closed. */
const char *nas_device_info_json(const nas_device *device);
/* nas_device_fingerprint - hash of CPU model, features, kernel: which numbers may be compared. Borrowed as above. */
const char *nas_device_fingerprint(const nas_device *device);

/* ---- what to compile for --------------------------------------------------------------------------------------- */

typedef struct nas_device_facts {
    char arch[16];  /* as nas_target.arch: "x86-64", "aarch64", "armv7", "riscv64"; "" = not told */
    char os[16];    /* "android", "linux"; "" = not told */
    char model[64]; /* of the processor, or of the phone; "" = not told */
    char serial[64];            /* adb serial; "" when the device is no phone */
    int32_t cpus;               /* online; 0 = not told */
    char vendor[16];            /* of an x86 processor, "AuthenticAMD"; "" = not told */
    int32_t family;             /* as its vendor counts; 0 = not told */
    int64_t l1_bytes, l2_bytes; /* of data in one of its fastest cores; 0 = not told */
    bool virtual_clock; /* its clock counts instructions (clock_source "virtual..."): an emulated
                           device, all of whose times are simulated */
} nas_device_facts;

/* nas_device_facts_of - read from the agent's document when the device was opened. All empty when simulated. Borrowed
 * until the device is reopened or closed. */
const nas_device_facts *nas_device_facts_of(const nas_device *device);
/* nas_device_has_feature - names as in nas_target.needs: "asimddp", "i8mm", "avx2", "avx512vnni", ...; other spellings
 * of the kernel and of people ("avx512_vnni", "dotprod", "neon") mean the same. false when the device did not say. */
bool nas_device_has_feature(const nas_device *device, const char *name);
/* nas_device_suits - would a program for `arch` with the features `needs` (comma-separated, nas_target.arch and .needs)
 * start there? UNSUPPORTED names what is missing. A simulated device suits everything. */
nas_status nas_device_suits(nas_ctx *ctx, const nas_device *device, const char *arch,
                            const char *needs);

/* ---- measuring ------------------------------------------------------------------------------------------------- */

typedef struct nas_measure_options {
    int32_t min_batches;      /* 30 */
    int32_t min_time_ms;      /* 500 */
    int32_t max_time_ms;      /* 10000 while searching, 60000 for finalists */
    int32_t warmup_ms;        /* exactly so long; 0 = until the times are steady, 200 ms to 2 s */
    int32_t max_repeats;      /* fresh-process repeats when wide or disturbed, 3 */
    double accept_half_width; /* relative CI half-width accepted, 0.02 */
    int64_t deadline_ms;      /* of one run */
    const char *needs; /* features the artifact uses (nas_target.needs), checked before it is sent;
                                 NULL = none known. Its architecture is read from the file itself. */
    /* After the program was timed, also time each of its layers. An agent older than this option refuses it: DEVICE. */
    bool profile;
} nas_measure_options;

nas_measure_options nas_measure_options_default(void);

/* One layer of a compiled network, over some runs of all of it. */
typedef struct nas_layer_time {
    /* The node whose value it writes; before it what else it does, "output of ". */
    char name[NAS_GRAPH_NAME_MAX + 32];
    double p50_us; /* >= 0 */
} nas_layer_time;

/* p50_lo_us and p50_hi_us are the 95 % interval of what another run would show: the run's own (in the passport) joined with
 * the scatter from run to run of programs that this device has timed more than once. Before it has, 2 % is assumed. */
typedef struct nas_measurement {
    double p50_us, p50_lo_us, p50_hi_us, p90_us, p10_us, min_us, mad_us;
    double run_lo_us, run_hi_us; /* the 95 % interval of this run alone */
    double init_us, first_us;
    int32_t batch_size, batches, dropped, repeats, threads;
    bool noisy; /* interval still wide after the repeats */
    bool simulated;
    double wall_s;
    double rate_per_s;     /* sustained: inferences a second over the last third; 0 in a burst */
    bool has_energy;       /* where the platform shows it */
    bool energy_coarse;    /* the battery's: the whole device, refreshed slowly */
    double energy_mj;      /* of one inference, minus the machine at rest where that is known */
    double celsius_max;    /* of the CPU while it was timed; 0 = not shown */
    bool frequency_pinned; /* asked for, written and read back */
    size_t n_samples;
    double *samples_us; /* kept samples of the accepted run, owned */
    /* Owned; n_layers 0: not asked for, simulated, or no layers (NAS_FORM_ROWS). */
    nas_layer_time *layers;
    size_t n_layers;
    char *passport_json; /* before/after probes, limits, pinning, agent version, options; owned */
} nas_measurement;
void nas_measurement_deinit(nas_measurement *m);

/* nas_measure - uploads the artifact when the device lacks it, runs the protocol, re-measures when wide.
 * `graph` is used by the simulated device and may be NULL otherwise; path/sha256 name the artifact.
 * Errors: DEVICE (agent gone, program failed: its stderr in the message), NET, TIMEOUT, CANCELLED, PARSE, UNSUPPORTED
 * (the artifact is for another architecture or needs a feature the device lacks; nothing was sent). */
nas_status nas_measure(nas_ctx *ctx, nas_device *device, const nas_graph *graph,
                       const char *artifact_path, const char *artifact_sha256,
                       const nas_measure_options *options, nas_measurement *out);

/* A program that is no model, but starts like one: --bench --threads N --max-time-ms N and other options with a value each. It
 * prints one JSON object. */
typedef struct nas_device_program {
    const char *path, *sha256;
    int32_t threads;    /* >= 1 */
    double seconds;     /* what it is asked to take, > 0, at most 60 */
    const char *member; /* of the object: a text, what it has to say */
} nas_device_program;

/* nas_device_run - uploads the program when the device lacks it, runs it once, cool as for a measurement, and appends the text
 * to `out`. Errors: those of nas_measure; UNSUPPORTED for a simulated device, INVALID for options out of range. */
nas_status nas_device_run(nas_ctx *ctx, nas_device *device, const nas_device_program *program,
                          nas_buf *out);

/* nas_device_know_run - a run of an earlier session, oldest first: repeats of one program show how far runs scatter. */
nas_status nas_device_know_run(nas_ctx *ctx, nas_device *device, const char *sha256, double p50_us);

/* ---- predictor ------------------------------------------------------------------------------------------------- */

/* Per-layer features -> latency; later models replace the inside, not this interface. Values in us.
 * Today: a sum of physical terms (padded MACs of each kernel family, outputs, elements, rows times layers, one fixed
 * cost a frame), each cost >= 0, times the exponential of a Gaussian process over the network's shape. Compiled networks
 * run as a pipeline over rows, so layers overlap and share caches: the sum is fitted to whole networks, never made of
 * layers timed alone. The interval is conformal: 95 % of held-out rows were inside; it holds for networks like the
 * measured ones and is too narrow (84 to 91 % in simulation) for networks much larger than any of them. Deterministic.
 * Rows may repeat: equal networks are held out together. A fit takes about 1 ms at 30 rows, 40 ms at 200. */
typedef struct nas_predictor nas_predictor;

typedef struct nas_prediction {
    double p50_us;
    double lo_us, hi_us; /* interval of the predictor's level, 95 % unless set */
} nas_prediction;

typedef struct nas_predictor_quality {
    size_t n_train;
    bool is_set;     /* false while there are too few rows */
    double mape;     /* cross-validated, held out, fraction */
    double spearman; /* held out; 0 when all latencies are equal */
} nas_predictor_quality;

/* lanes: fp32 lanes of the device's vectors (channels/pixels are padded to them in the features). */
nas_status nas_predictor_new(nas_ctx *ctx, int32_t lanes, nas_predictor **out);
void nas_predictor_free(nas_predictor *p);
/* nas_predictor_set_level - share of measurements that the intervals of later fits are to hold, 0.5..0.999; 0.95 when
 * never set. RANGE. */
nas_status nas_predictor_set_level(nas_ctx *ctx, nas_predictor *p, double level);
/* nas_predictor_add - one measured row; noisy rows get a lower weight. The graph is not kept. */
nas_status nas_predictor_add(nas_ctx *ctx, nas_predictor *p, const nas_graph *graph, double p50_us,
                             bool noisy);
/* nas_predictor_fit - refits on all rows; after a failure the last fit still stands. INVALID while fewer rows than
 * nas_predictor_min_rows, or when all are of one network. */
nas_status nas_predictor_fit(nas_ctx *ctx, nas_predictor *p);
size_t nas_predictor_min_rows(void); /* 8 */
nas_predictor_quality nas_predictor_quality_of(const nas_predictor *p);
nas_status nas_predictor_predict(nas_ctx *ctx, const nas_predictor *p, const nas_graph *graph,
                                 nas_prediction *out);
const char *
nas_predictor_id(const nas_predictor *p); /* "terms-gp/1 n=37": stored with each prediction */

/* Layer rows for the database and people: one per costed node. */
typedef struct nas_layer_features {
    const char *node; /* borrowed from the graph */
    const char
        *family; /* "conv1x1", "conv3x3" .. "conv9x9", "conv" (other), "elementwise", "shuffle" */
    int32_t h, w, c_in, c_out, kernel;
    uint64_t macs;
    uint64_t
        macs_padded; /* with output channels rounded up to multiples of 4 and rows of pixels to lanes */
    uint64_t bytes;
    double intensity; /* FLOP per byte; elementwise counts one an element, shuffle none */
} nas_layer_features;
/* nas_layer_features_of - fills at most `max` rows, *n = rows needed. lanes 1..64. INVALID, RANGE (padded beyond
 * int64). */
nas_status nas_layer_features_of(nas_ctx *ctx, const nas_graph *graph, int32_t lanes,
                                 nas_layer_features *rows, size_t max, size_t *n);

#endif
