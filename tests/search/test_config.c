/* test_config.c - configs: the shipped files, every kind of mistake with its place, overrides, effective JSON, diffs. */
#include "search/config.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nas_ctx *ctx;
static long live_before;

static void setup(void) {
    live_before = nas_mem_live();
    ctx = nas_ctx_new();
}

static void teardown(void) {
    nas_mem_fail_after(0);
    nas_ctx_free(ctx);
    cr_expect(eq(long, nas_mem_live(), live_before));
}

TestSuite(search_config, .init = setup, .fini = teardown);

/* One parse and all it gives; freed by loaded_free. */
typedef struct loaded {
    nas_status status;
    nas_config config;
    nas_buf json, errors;
} loaded;

static loaded *load(const char *text, const char *const *overrides, size_t n) {
    loaded *l = nas_alloc_array(ctx, 1, sizeof *l);
    cr_assert(ne(ptr, l, NULL));
    l->status = nas_config_parse(ctx, "t.toml", text, strlen(text), overrides, n, &l->config,
                                 &l->json, &l->errors);
    return l;
}

static void loaded_free(loaded *l) {
    nas_buf_deinit(&l->json);
    nas_buf_deinit(&l->errors);
    nas_free(l);
}

static const char *errors_of(const loaded *l) {
    return l->errors.data == NULL ? "" : l->errors.data;
}

static size_t lines_in(const char *text) {
    size_t n = 0;
    for (; *text != '\0'; text++)
        n += *text == '\n';
    return n;
}

/* ---- what is legal --------------------------------------------------------------------------------------------- */

Test(search_config, empty_file_gives_the_defaults) {
    loaded *l = load("", NULL, 0);
    cr_assert(eq(int, (int)l->status, NAS_OK), "%s", errors_of(l));
    nas_config *defaults = nas_alloc_array(ctx, 1, sizeof *defaults);
    nas_config_default(defaults);
    cr_expect(eq(str, l->config.study.dir, "runs/study"));
    cr_expect(eq(int, l->config.n_devices, 1));
    cr_expect(eq(str, l->config.devices[0].connect, "local"));
    cr_expect(eq(int, l->config.eval.batch, defaults->eval.batch));
    cr_expect(eq(int, l->config.space.lr_width, 640));
    cr_expect(eq(int, l->config.search.options.n_objectives, 2));
    nas_free(defaults);
    loaded_free(l);
}

Test(search_config, every_key_type_is_read) {
    loaded *l = load(
        "[study]\nname = \"a-b\"\nseed = 9007199254740991\n"
        "[task]\nscale = 3\nout_height = 96\nout_width = 192\n"
        "[space]\nresidual = [8, 16, 4]\nhead_kernels = [1, 9]\n"
        "[eval]\nlearning_rate = 1\n"
        "[search]\nskip_by_prediction = false\n"
        "[objectives]\nminimise = [\"macs\", \"latency_p90_ms@device1\"]\nmaximise = \"ssim_y\"\n"
        "[constraints]\n\"latency_p90_ms@simulated\" = [\"<= 33.5\", \">=1e0\", \"60%\"]\n"
        "[[device]]\nconnect = \"simulated\"\n"
        "[[device]]\nconnect = \"http://127.0.0.1:7917\"\nkey_file = \"k\"\nthreads = 2\ncores "
        "= \"0,1\"\n",
        NULL, 0);
    cr_assert(eq(int, (int)l->status, NAS_OK), "%s", errors_of(l));
    const nas_config *c = &l->config;
    cr_expect(eq(str, (char *)c->study.dir, "runs/a-b"));
    cr_expect(eq(u64, c->study.seed, 9007199254740991u));
    cr_expect(eq(int, c->space.scale, 3));
    cr_expect(eq(int, c->space.lr_height, 32));
    cr_expect(eq(int, c->space.lr_width, 64));
    cr_expect(eq(int, c->space.residual.max, 16));
    cr_expect(eq(int, c->space.n_head_kernels, 2));
    cr_expect(eq(int, c->space.head_kernels[1], 9));
    cr_expect(eq(dbl, c->eval.learning_rate, 1.0));
    cr_expect(not(c->search.skip_by_prediction));
    cr_assert(eq(int, c->n_objectives, 3));
    cr_expect(eq(int, (int)c->objectives[0].metric, NAS_METRIC_SSIM_Y),
              "the maximised ones come first");
    cr_expect(eq(int, (int)c->objectives[1].metric, NAS_METRIC_MACS));
    cr_expect(eq(int, (int)c->objectives[2].metric, NAS_METRIC_LATENCY_P90_MS));
    cr_expect(eq(int, c->objectives[2].queue, 1));
    cr_expect(eq(int, c->constraints[0].queue, 0));
    cr_assert(eq(int, c->n_constraints, 3));
    cr_expect(c->constraints[0].at_most && !c->constraints[0].is_percent);
    cr_expect(eq(dbl, c->constraints[0].bound, 33.5));
    cr_expect(not(c->constraints[1].at_most));
    cr_expect(c->constraints[2].at_most && c->constraints[2].is_percent);
    cr_assert(eq(int, c->n_devices, 2));
    cr_expect(eq(str, (char *)c->devices[0].name, "simulated"));
    cr_expect(eq(str, (char *)c->devices[1].name, "device1"));
    loaded_free(l);
}

Test(search_config, equal_configs_written_differently_give_equal_json) {
    loaded *a = load(
        "[budget]\ntime_s = 60\n[eval]\nbatch = 8\n[constraints]\nlatency_p90_ms = \"<= 33\"\n",
        NULL, 0);
    loaded *b = load(
        "constraints.latency_p90_ms = [ \"<=33.0\" ]\neval = { batch = 8 }\nbudget.time_s = 60.0\n"
        "[[device]]\n",
        NULL, 0);
    cr_assert(eq(int, (int)a->status, NAS_OK));
    cr_assert(eq(int, (int)b->status, NAS_OK), "%s", errors_of(b));
    cr_expect(eq(str, a->json.data, b->json.data));
    loaded_free(a);
    loaded_free(b);
}

Test(search_config, effective_json_is_sorted_and_valid) {
    loaded *l = load("", NULL, 0);
    json_error_t error;
    json_t *object = json_loads(l->json.data, JSON_REJECT_DUPLICATES, &error);
    cr_assert(ne(ptr, object, NULL), "%s", error.text);
    char last[128] = "";
    const char *key = NULL;
    json_t *value = NULL;
    size_t n = 0;
    json_object_foreach(object, key, value) { /* jansson keeps the order of the text */
        cr_expect(strcmp(last, key) < 0, "%s before %s", last, key);
        (void)snprintf(last, sizeof last, "%s", key);
        n++;
    }
    cr_expect(n > 50);
    cr_expect(
        eq(str, (char *)json_string_value(json_object_get(object, "device[0].name")), "local"));
    json_decref(object);
    loaded_free(l);
}

/* ---- what is not ----------------------------------------------------------------------------------------------- */

typedef struct mistake {
    const char *text;
    const char *line; /* the one line of `errors`, without newline */
} mistake;

static const mistake mistakes[] = {
    {"[evel]\nx = 1", "t.toml:1:2: evel: unknown section (did you mean [eval]?)"},
    {"[eval]\nbatches = 1", "t.toml:2:1: eval.batches: unknown key (did you mean eval.batch?)"},
    {"[eval]\npopulation = 8",
     "t.toml:2:1: eval.population: unknown key (did you mean search.population?)"},
    {"[task]\nzzzzz = 8",
     "t.toml:2:1: task.zzzzz: unknown key (keys of [task]: kind, scale, out_height, out_width)"},
    {"[eval]\n\"batch.x\" = 1",
     "t.toml:2:1: eval.\"batch.x\": unknown key (keys of [eval]: threads, dtype, batch, patch, "
     "supernet_steps, finetune_steps, winner_steps, finetune_max, baseline_steps, "
     "supernet_weights, learning_rate, finetune_learning_rate)"},
    {"eval = 3", "t.toml:1:1: eval: is a section: write [eval] and its keys below"},
    {"[[eval]]\nbatch = 1\n[[eval]]", "t.toml:1:1: eval[0]: not a list: write [eval] once"},
    {"[device]\nthreads = 1", "t.toml:1:2: device: devices are a list: write [[device]]"},
    {"device = []", "t.toml:1:1: device: write one or more [[device]] tables, or leave it out for "
                    "the local device"},
    {"[eval]\nbatch = 0", "t.toml:2:9: eval.batch: must be a whole number, 1..1024 patches, not 0"},
    {"[eval]\nbatch = 1.5",
     "t.toml:2:9: eval.batch: must be a whole number, 1..1024 patches, not 1.5"},
    {"[eval]\nbatch.x = 5",
     "t.toml:2:1: eval.batch: must be a whole number, 1..1024 patches, not a table"},
    {"[study]\nseed = 9223372036854775807", "t.toml:2:8: study.seed: must be a whole number, "
                                            "0..9007199254740991, not 9223372036854775807"},
    {"[eval]\nlearning_rate = nan",
     "t.toml:2:17: eval.learning_rate: must be a number, above 0, at most 1, not nan"},
    {"[eval]\nlearning_rate = 0",
     "t.toml:2:17: eval.learning_rate: must be a number, above 0, at most 1, not 0"},
    {"[search]\nskip_by_prediction = 1",
     "t.toml:2:22: search.skip_by_prediction: must be true, false, not 1"},
    {"[search]\nstrategy = \"nsga3\"",
     "t.toml:2:12: search.strategy: must be text in quotes: "
     "random or evolution or nsga2 or greedy or ddpg or agmc, not \"nsga3\""},
    {"[study]\nname = \"a\\u0000b\"",
     "t.toml:2:8: study.name: must be text in quotes: at most 95 bytes, not \"a\""},
    {"[study]\nname = \"../x\"",
     "t.toml:2:1: study.name: \"../x\" must be letters, digits, '.', '_', '-' and begin "
     "with a letter or digit"},
    {"[study]\nname = \"\"\"a\\\n\xc3\xa9\"\"\"",
     "t.toml:2:1: study.name: \"a\xc3\xa9\" must be letters, digits, '.', '_', '-' and begin with "
     "a letter or digit"},
    {"[task]\nout_width = 1281", "t.toml:2:1: task.out_width: task.out_width = 1281 is not a "
                                 "multiple of task.scale = 2 (nearest: 1280 or 1282)"},
    {"[task]\nscale = 3\nout_width = 1278\nout_height = 721",
     "t.toml:4:1: task.out_height: task.out_height = 721 is not a multiple of task.scale = 3 "
     "(nearest: 720 or 723)"},
    {"[space]\nblocks_min = 6\nblocks_max = 5",
     "t.toml:2:1: space.blocks_min: space.blocks_min = 6 is above space.blocks_max = 5"},
    {"[space]\nresidual = [8, 26, 4]",
     "t.toml:2:1: space.residual: [8, 26, 4] never reaches its max: the last step is 24"},
    {"[space]\nexpand = [96, 16, 16]",
     "t.toml:2:1: space.expand: [96, 16, 16] is empty: min is above max"},
    {"[space]\nproject = [8, 16, 0]",
     "t.toml:2:11: space.project: must be [min, max, step], each 1..256 channels, not [8, 16, 0]"},
    {"[space]\nhead_kernels = [3, 4]",
     "t.toml:2:16: space.head_kernels: must be 1 to 4 odd sizes, each 1..9 pixels, not [3, 4]"},
    {"[space]\nhead_kernels = [5, 3]",
     "t.toml:2:1: space.head_kernels: sizes must rise, each once: 3 comes after 5"},
    {"[eval]\npatch = 200",
     "t.toml:2:1: eval.patch: patches of 400 x 400 upscaled pixels do not fit "
     "data.leaves_size = 256 (lower eval.patch or raise data.leaves_size)"},
    {"[search]\npopulation = 4\ntournament = 5",
     "t.toml:3:1: search.tournament: search.tournament = 5 is above search.population = 4"},
    {"[measure]\nmin_time_ms = 600\nmax_time_ms = 500",
     "t.toml:2:1: measure.min_time_ms: measure.min_time_ms = 600 is above measure.max_time_ms = "
     "500"},
    {"[objectives]\nmaximise = [\"latency_p50_ms\"]",
     "t.toml:2:13: objectives.maximise: less of latency_p50_ms is better: move it to "
     "objectives.minimise"},
    {"[objectives]\nmaximise = [\"psnr_y\", \"psnr_y\"]",
     "t.toml:2:23: objectives.maximise: \"psnr_y\" is given twice"},
    {"[objectives]\nminimise = [\"latency\"]",
     "t.toml:2:13: objectives.minimise: unknown metric \"latency\" (did you mean latency_p50_ms)"},
    {"[objectives]\nmaximise = []",
     "t.toml:2:1: objectives.maximise: no objective is left: name at least one metric"},
    {"[objectives]\nminimise = [\"macs\", \"params\", \"latency_p50_ms\", \"latency_p90_ms\", "
     "\"peak_activation_bytes\"]",
     "t.toml:2:67: objectives.minimise: more than 4 objectives (make one a constraint)"},
    {"[constraints]\nlatency_p90 = \"<= 3\"",
     "t.toml:2:1: constraints.latency_p90: unknown key (did you mean constraints.latency_p90_ms?)"},
    {"[constraints]\nlatency_p90_ms = \"33\"", "t.toml:2:18: constraints.latency_p90_ms: \"33\": "
                                               "write it as \"<= 33\", \">= 30.5\" or \"<= 60%\""},
    {"[constraints]\nlatency_p90_ms = \"<= 33 ms\"",
     "t.toml:2:18: constraints.latency_p90_ms: \"<= 33 ms\": the number must end the text: the "
     "unit is in the key's "
     "name"},
    {"[constraints]\nlatency_p90_ms = \"<= 0x10\"",
     "t.toml:2:18: constraints.latency_p90_ms: \"<= 0x10\": write it as \"<= 33\", \">= 30.5\" or "
     "\"<= 60%\""},
    {"[constraints]\nmacs = \"<= 1e999\"", "t.toml:2:8: constraints.macs: \"<= 1e999\": write it "
                                           "as \"<= 33\", \">= 30.5\" or \"<= 60%\""},
    {"[constraints]\nmacs = \"<= -1\"", "t.toml:2:8: constraints.macs: \"<= -1\": must be above 0"},
    {"[constraints]\npsnr_y = \">= 90%\"",
     "t.toml:2:10: constraints.psnr_y: \">= 90%\": percent of the full-width supernet makes sense "
     "only where less is "
     "better: give a value"},
    {"[constraints]\nssim_y = \">= 1.2\"",
     "t.toml:2:10: constraints.ssim_y: \">= 1.2\": must be -1..1"},
    {"[constraints]\nlatency_p90_ms = [\"<= 33\", \">= 40\"]",
     "t.toml:2:1: constraints.latency_p90_ms: latency_p90_ms <= 33 and latency_p90_ms >= 40: "
     "nothing can satisfy both"},
    {"[constraints]\nlatency_p50_ms = \">= 40\"\nlatency_p90_ms = \"<= 33\"",
     "t.toml:3:1: constraints.latency_p90_ms: latency_p50_ms >= 40 and latency_p90_ms <= 33: "
     "nothing can satisfy both"},
    {"[constraints]\nmacs = [\"<= 5\", \"<= 6\"]",
     "t.toml:2:1: constraints.macs: macs <= 5 and macs <= 6: given twice: keep the tighter one"},
    {"[[device]]\nconnect = \"usb:X1\"",
     "t.toml:2:1: device[0].connect: \"usb:X1\" is not \"local\", \"http://host:port\", "
     "\"adb:SERIAL\", \"adb:*\", \"simulated\" or \"simulated:FACTOR\" (0.001..1000)"},
    {"[[device]]\nconnect = \"http://h:70000\"\nkey_file = \"k\"",
     "t.toml:2:1: device[0].connect: \"http://h:70000\" is not \"local\", \"http://host:port\", "
     "\"adb:SERIAL\", \"adb:*\", \"simulated\" or \"simulated:FACTOR\" (0.001..1000)"},
    {"[[device]]\nconnect = \"simulated:0\"",
     "t.toml:2:1: device[0].connect: \"simulated:0\" is not \"local\", \"http://host:port\", "
     "\"adb:SERIAL\", \"adb:*\", \"simulated\" or \"simulated:FACTOR\" (0.001..1000)"},
    {"[[device]]\nconnect = \"http://h:7000\"",
     "t.toml:1:1: device[0].key_file: an http device needs the file with its agent's key"},
    {"[[device]]\nkey_file = \"k\"",
     "t.toml:2:1: device[0].key_file: only http devices have a key file; remove it"},
    {"[[device]]\nconnect = \"adb:X1\"\n",
     "t.toml:1:1: compile.target: \"native\" is this machine, and device 'device0' is a phone: "
     "write \"auto\" or a target's name"},
    {"[[device]]\nconnect = \"adb:X1\"\ntarget = \"native\"",
     "t.toml:3:1: device[0].target: \"native\" is this machine, and device 'device0' is a phone: "
     "write \"auto\" or a target's name"},
    {"[objectives]\nminimise = [\"macs\"]\n[[device]]\n[[device]]",
     "t.toml:4:1: device[1].name: \"local\" is the name of device[0], too: names must differ"},
    {"[[device]]\ncpus = \"0-1\"",
     "t.toml:2:1: device[0].cpus: is called cores now: \"big\", \"little\", \"0-3\" or \"0,1\""},
    {"[[device]]\ncores = \"huge\"",
     "t.toml:2:1: device[0].cores: \"huge\" is not \"big\", \"little\" or core numbers such as "
     "\"0,1\", \"0-3\""},
    {"[[device]]\ncores = \"3-0\"",
     "t.toml:2:1: device[0].cores: \"3-0\" is not \"big\", \"little\" or core numbers such as "
     "\"0,1\", \"0-3\""},
    {"[[device]]\nthreads = 2\ncores = \"0\"",
     "t.toml:3:1: device[0].cores: 1 cores for 2 threads: name one core a thread"},
    {"[[device]]\nmode = \"cold\"", "t.toml:2:8: device[0].mode: must be text in quotes: burst or "
                                    "sustained, not \"cold\""},
    {"[[device]]\nsustained_s = 5",
     "t.toml:2:15: device[0].sustained_s: must be a whole number, 10..3600 s, not 5"},
    {"[[device]]\nfrequency = \"low\"",
     "t.toml:2:13: device[0].frequency: must be \"max\", or MHz of each cluster, the smallest "
     "first: [1800, 2400], not \"low\""},
    {"[[device]]\nfrequency = [0]",
     "t.toml:2:13: device[0].frequency: must be \"max\", or MHz of each cluster, the smallest "
     "first: [1800, 2400], not [0]"},
    {"[[device]]\nmax_temperature_c = 151",
     "t.toml:2:21: device[0].max_temperature_c: must be a number, 0..150 C, not 151"},
    {"[objectives]\nminimise = [\"macs\"]\n[[device]]\nname = \"a\"\npool = \"p\"\nconnect = "
     "\"simulated\"\n[[device]]\nname = \"b\"\npool = \"p\"\nconnect = \"simulated\"\nthreads = 1",
     "t.toml:11:1: device[1].threads: differs from that of device[0] in the same pool \"p\": one "
     "queue, one way to measure"},
    {"[objectives]\nminimise = [\"macs\"]\n[[device]]\nname = \"a\"\nconnect = \"simulated\"\n"
     "[[device]]\nname = \"b\"\npool = \"a\"\nconnect = \"simulated\"",
     "t.toml:8:1: device[1].pool: \"a\" is the name of device[0], which is in no pool"},
    {"[[device]]\npool = \"p\"", "t.toml:2:1: device[0].pool: this machine is one device: no pool"},
    {"[[device]]\nname = \"a\"\n[[device]]\nname = \"b\"",
     "t.toml:1:1: objectives.minimise: 2 devices or pools: say whose latency is minimised, such as "
     "\"latency_p50_ms@a\""},
    {"[objectives]\nminimise = [\"latency_p50_ms\"]\n[[device]]\nname = \"a\"\n[[device]]\nname = "
     "\"b\"",
     "t.toml:2:13: objectives.minimise: latency_p50_ms is measured in 2 places: write "
     "latency_p50_ms@a or latency_p50_ms@b"},
    {"[objectives]\nminimise = [\"latency_p50_ms@c\"]",
     "t.toml:2:13: objectives.minimise: no device or pool is called \"c\": write "
     "latency_p50_ms@local"},
    {"[objectives]\nminimise = [\"macs@local\"]",
     "t.toml:2:13: objectives.minimise: macs is the same on every device: remove \"@local\""},
    {"[constraints]\n\"latency_p90_ms@c\" = \"<= 3\"",
     "t.toml:2:1: constraints.\"latency_p90_ms@c\": no device or pool is called \"c\": write "
     "latency_p90_ms@local"},
    {"[constraints]\n\"latency_p91_ms@local\" = \"<= 3\"",
     "t.toml:2:1: constraints.\"latency_p91_ms@local\": unknown key (did you mean "
     "constraints.latency_p90_ms?)"},
    {"[objectives]\nminimise = [\"macs\"]\n[constraints]\n\"latency_p90_ms@b\" = [\"<= 33\", "
     "\">= 40\"]\n[[device]]\nname = \"a\"\n[[device]]\nname = \"b\"",
     "t.toml:4:1: constraints.\"latency_p90_ms@b\": latency_p90_ms@b <= 33 and latency_p90_ms@b >= "
     "40: nothing can satisfy both"},
    {"[compile]\ntarget = \"\"",
     "t.toml:2:1: compile.target: is empty: write \"native\" for this CPU, \"auto\" for each "
     "device's own"},
    {"[compile]\ndtype = \"fp16\"\n[task]\nkind = \"classify\"",
     "t.toml:2:1: compile.dtype: \"fp16\" is for super-resolution networks; classifiers compute in "
     "fp32 or bf16, or in integers by compress.act_bits"},
    {"[compile]\ndtype = \"bf16\"",
     "t.toml:2:1: compile.dtype: \"bf16\" is for classifiers; super-resolution networks compute in "
     "fp32 or fp16"},
    {"[compile]\ndtype = \"bf16\"\n[task]\nkind = \"classify\"\n[compress]\nspace = \"bits\"",
     "t.toml:2:1: compile.dtype: \"bf16\": compress.space = \"bits\" makes integers of weights, "
     "which "
     "are compiled as such: take amc, agmc or scheme, or leave the key out"},
    {"[compile]\ntimeout_s = 07:32:00",
     "t.toml:2:13: compile.timeout_s: must be a whole number, 1..3600 s, not a date or time"},
};

Test(search_config, each_mistake_is_named_with_its_place) {
    for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++) {
        loaded *l = load(mistakes[i].text, NULL, 0);
        cr_expect(eq(int, (int)l->status, (int)NAS_ERR_INVALID), "%s", mistakes[i].text);
        char expected[1024];
        (void)snprintf(expected, sizeof expected, "%s\n", mistakes[i].line);
        cr_expect(eq(str, (char *)errors_of(l), expected));
        cr_expect(eq(sz, l->json.len, (size_t)0));
        loaded_free(l);
    }
}

Test(search_config, syntax_errors_have_one_position) {
    static const char *const texts[] = {
        "[eval\nbatch = 1", "[eval]\nbatch = \n", "a = 1\na = 2", "[eval]\nbatch = 1e",
        "[eval]\n[[[x]]]",  "x = \"\xff\xfe\"",   "\xc3\xa9 = 1"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        loaded *l = load(texts[i], NULL, 0);
        cr_expect(eq(int, (int)l->status, (int)NAS_ERR_PARSE), "%s", texts[i]);
        int line = 0, column = 0, used = 0;
        const int read =
            sscanf(errors_of(l), "t.toml:%d:%d: not valid TOML: %n", &line, &column, &used);
        cr_expect(read == 2 && used > 0 && line >= 1 && column >= 1, "%s", errors_of(l));
        cr_expect(eq(sz, lines_in(errors_of(l)), (size_t)1));
        loaded_free(l);
    }
}

Test(search_config, all_mistakes_of_a_file_come_at_once_in_order) {
    loaded *l = load(
        "[search]\npopulation = 1\n[eval]\nbatch = \"many\"\nthreads = 0\nfoo = 1\n[[device]]\n"
        "connect = \"usb\"\n[constraints]\nmacs = 3\n",
        (const char *const[]){"budget.time_s=-1"}, 1);
    cr_expect(eq(int, (int)l->status, (int)NAS_ERR_INVALID));
    const char *at = errors_of(l);
    static const char *const starts[] = {
        "t.toml:2:14: search.population", "t.toml:4:9: eval.batch",
        "t.toml:5:11: eval.threads",      "t.toml:6:1: eval.foo",
        "t.toml:8:1: device[0].connect",  "t.toml:10:8: constraints.macs",
        "command line: budget.time_s"};
    cr_expect(eq(sz, lines_in(at), sizeof starts / sizeof starts[0]), "%s", at);
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        cr_expect(eq(int, strncmp(at, starts[i], strlen(starts[i])), 0), "line %zu of\n%s", i,
                  errors_of(l));
        at = strchr(at, '\n');
        cr_assert(ne(ptr, (char *)at, NULL));
        at++;
    }
    cr_expect(ne(ptr, strstr(nas_ctx_message(ctx), "7 problems"), NULL));
    loaded_free(l);
}

Test(search_config, hostile_text_ends_in_bounded_clean_lines) {
    nas_buf text = {0};
    for (int i = 0; i < 3000; i++)
        nas_buf_printf(&text, "\"k%d\\u001b[31m\" = 1\n", i);
    loaded *l = load(text.data, NULL, 0);
    cr_expect(eq(int, (int)l->status, (int)NAS_ERR_INVALID));
    cr_expect(eq(sz, lines_in(errors_of(l)), (size_t)101));
    cr_expect(eq(ptr, strchr(errors_of(l), 0x1b), NULL), "no terminal escapes");
    cr_expect(ne(ptr, strstr(errors_of(l), "2900 more problems"), NULL));
    loaded_free(l);
    nas_buf_clear(&text);
    for (int i = 0; i < 100000; i++)
        nas_buf_puts(&text, "[");
    l = load(text.data, NULL, 0);
    cr_expect(eq(int, (int)l->status, (int)NAS_ERR_PARSE), "deep nesting is refused, not followed");
    loaded_free(l);
    cr_expect(eq(int,
                 (int)nas_config_parse(ctx, "big", text.data, 2u << 20, NULL, 0, NULL, NULL, NULL),
                 (int)NAS_ERR_RANGE));
    nas_buf_deinit(&text);
}

Test(search_config, a_file_that_is_not_there_is_named) {
    nas_buf errors = {0};
    const nas_config_source source = {.path = "no/such/file.toml"};
    cr_expect(eq(int, (int)nas_config_load(ctx, &source, NULL, NULL, NULL, &errors),
                 (int)NAS_ERR_NOTFOUND));
    cr_assert(ne(ptr, errors.data, NULL));
    cr_expect(ne(ptr, strstr(errors.data, "no/such/file.toml"), NULL));
    nas_buf_deinit(&errors);
}

Test(search_config, a_line_that_trips_the_parser_is_named) {
    loaded *l = load("[eval]\nbatch = 4\n\n[[[x]]]\n[task]\n", NULL, 0);
    cr_expect(eq(int, (int)l->status, (int)NAS_ERR_PARSE));
    cr_expect(eq(int, strncmp(errors_of(l), "t.toml:4:", 9), 0), "%s", errors_of(l));
    loaded_free(l);
}

/* ---- overrides ------------------------------------------------------------------------------------------------- */

Test(search_config, overrides_replace_values_of_the_file) {
    static const char *const sets[] = {"eval.batch=4",       " eval.patch = 16 ",
                                       "data.train=/a:/b c", "space.residual=[8, 16, 8]",
                                       "search.trials=5",    "search.trials=6",
                                       "device.threads=1",   "device[0].connect=simulated",
                                       "device[1].name=x",   "constraints.latency_p90_ms@x=<= 20",
                                       "study.name=\"q\"",   "objectives.minimise=[\"macs\"]"};
    loaded *l = load("[eval]\nbatch = \"wrong\"\n[[device]]\nthreads = 3\n", sets,
                     sizeof sets / sizeof sets[0]);
    cr_assert(eq(int, (int)l->status, NAS_OK), "%s", errors_of(l));
    const nas_config *c = &l->config;
    cr_expect(eq(int, c->eval.batch, 4));
    cr_expect(eq(int, c->eval.patch, 16));
    cr_expect(eq(str, (char *)c->data.train, "/a:/b c"));
    cr_expect(eq(int, c->space.residual.step, 8));
    cr_expect(eq(int, c->search.trials, 6), "the last one counts");
    cr_assert(eq(int, c->n_devices, 2));
    cr_expect(eq(int, c->devices[0].threads, 1));
    cr_expect(eq(str, (char *)c->devices[0].connect, "simulated"));
    cr_expect(eq(str, (char *)c->devices[1].name, "x"));
    cr_assert(eq(int, c->n_constraints, 1));
    cr_expect(eq(dbl, c->constraints[0].bound, 20.0));
    cr_expect(eq(int, c->constraints[0].queue, 1));
    cr_assert(eq(int, c->n_objectives, 1), "a list given alone is all there is");
    loaded_free(l);
}

Test(search_config, wrong_overrides_are_reported_like_the_file) {
    static const mistake rows[] = {
        {"nonsense", "command line: nonsense: not an override: write section.key=value"},
        {"=3", "command line: =3: not an override: write section.key=value"},
        {"eval.batch=0",
         "command line: eval.batch: must be a whole number, 1..1024 patches, not 0"},
        {"eval.batches=1", "command line: eval.batches: unknown key (did you mean eval.batch?)"},
        {"eval.batch=[1", "command line: eval.batch: '[1' is not a TOML value"},
        {"study.name=\"x", "command line: study.name: '\"x' is not a TOML value"},
        {"device[9].threads=1", "command line: device[9].threads: no such device: write device[0]. "
                                "to device[0]., or device. for all"},
        {"eval={batch=3}", "command line: eval: one override sets one key, not a table"},
        {"eval.batch={x=3}", "command line: eval.batch: one override sets one key, not a table"},
        {"device=[{threads=1}, {threads=2}]",
         "command line: device: one override sets one key, not a table"},
        {"eval=3", "command line: eval: is a section: write [eval] and its keys below"},
        {"eval.batch=1\neval.patch=9",
         "command line: --set: an override is one line of UTF-8, at most 16384 bytes"},
        {"data.train=\xff",
         "command line: --set: an override is one line of UTF-8, at most 16384 bytes"},
        {"constraints.latency_p90_ms=33", "command line: constraints.latency_p90_ms: must be text "
                                          "in quotes such as \"<= 33\", or a list of such "
                                          "texts"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        loaded *l = load("", &rows[i].text, 1);
        cr_expect(eq(int, (int)l->status, (int)NAS_ERR_INVALID), "%s", rows[i].text);
        char expected[512];
        (void)snprintf(expected, sizeof expected, "%s\n", rows[i].line);
        cr_expect(eq(str, (char *)errors_of(l), expected));
        loaded_free(l);
    }
}

/* ---- differences ----------------------------------------------------------------------------------------------- */

Test(search_config, diff_names_the_keys_that_changed) {
    loaded *a = load("[eval]\nbatch = 8\n[search]\ntrials = 10\n[objectives]\nmaximise = "
                     "[\"psnr_y\"]\nminimise = [\"macs\"]\n",
                     NULL, 0);
    loaded *b = load("[eval]\nbatch = 9\nthreads = 1\n[search]\ntrials = 20\n[budget]\ntime_s = 5\n"
                     "[objectives]\nmaximise = [\"psnr_y\"]\nminimise = [\"macs\"]\n"
                     "[[device]]\n[[device]]\nname = \"z\"\n",
                     NULL, 0);
    nas_buf diff = {0};
    cr_assert(eq(int, (int)nas_config_diff(ctx, a->json.data, b->json.data, &diff), NAS_OK));
    cr_expect(eq(str, diff.data,
                 "device[1].connect: (absent) -> \"local\"\ndevice[1].cores: (absent) -> \"\"\n"
                 "device[1].cpu: (absent) -> \"\"\ndevice[1].frequency: (absent) -> \"\"\n"
                 "device[1].max_temperature_c: (absent) -> 0\n"
                 "device[1].mode: (absent) -> \"burst\"\ndevice[1].name: (absent) -> \"z\"\n"
                 "device[1].pool: (absent) -> \"\"\ndevice[1].sustained_s: (absent) -> 300\n"
                 "device[1].target: (absent) -> \"\"\ndevice[1].threads: (absent) -> 2\n"
                 "eval.batch: 8 -> 9\n"));
    nas_buf_clear(&diff);
    cr_assert(eq(int, (int)nas_config_diff(ctx, a->json.data, a->json.data, &diff), NAS_OK));
    cr_expect(eq(sz, diff.len, (size_t)0));
    cr_assert(eq(
        int, (int)nas_config_diff(ctx, "{\"search.trials\":20}", "{\"search.trials\":10}", &diff),
        NAS_OK));
    cr_expect(eq(str, diff.data, "search.trials: 20 -> 10\n"),
              "fewer trials than done is a change");
    cr_expect(eq(int, (int)nas_config_diff(ctx, "{", "{}", &diff), (int)NAS_ERR_PARSE));
    cr_expect(eq(int, (int)nas_config_diff(ctx, "{}", "[]", &diff), (int)NAS_ERR_PARSE));
    nas_buf_deinit(&diff);
    loaded_free(a);
    loaded_free(b);
}

/* ---- shipped files --------------------------------------------------------------------------------------------- */

Test(search_config, shipped_configs_are_valid) {
    static const char *const paths[] = {"configs/sr720p.toml", "configs/sr720p-quick.toml",
                                        "configs/sr720p-android.toml", "configs/two-devices.toml"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        const nas_config_source source = {.path = paths[i]};
        nas_config *config = nas_alloc_array(ctx, 1, sizeof *config);
        nas_buf toml = {0}, errors = {0};
        cr_assert(eq(int, (int)nas_config_load(ctx, &source, config, &toml, NULL, &errors), NAS_OK),
                  "%s", errors.data == NULL ? nas_ctx_message(ctx) : errors.data);
        cr_expect(toml.len > 0);
        nas_space *space = NULL;
        cr_expect(eq(int, (int)nas_space_sr_new(ctx, &config->space, &space), NAS_OK), "%s",
                  nas_ctx_message(ctx));
        nas_space_free(space);
        nas_buf_deinit(&toml);
        nas_buf_deinit(&errors);
        nas_free(config);
    }
}

/* NAS_GOLDEN_WRITE=1 writes the reference into the file instead. */
Test(search_config, readme_holds_exactly_the_reference) {
    static const char begin[] = "<!-- reference: begin -->\n", end[] = "<!-- reference: end -->\n";
    static const char path[] = "configs/README.md";
    nas_buf reference = {0}, file = {0};
    cr_assert(eq(int, (int)nas_config_reference(ctx, &reference), NAS_OK));
    cr_assert(eq(int, (int)nas_file_read(ctx, path, 1 << 20, &file), NAS_OK), "%s",
              nas_ctx_message(ctx));
    const char *from = strstr(file.data, begin), *to = strstr(file.data, end);
    cr_assert(from != NULL && to != NULL && from < to, "markers of %s", path);
    from += strlen(begin);
    const size_t len = (size_t)(to - from);
    const bool equal = len == reference.len && memcmp(from, reference.data, len) == 0;
    if (!equal && getenv("NAS_GOLDEN_WRITE") != NULL) {
        nas_buf fresh = {0};
        nas_buf_append(&fresh, file.data, (size_t)(from - file.data));
        nas_buf_append(&fresh, reference.data, reference.len);
        nas_buf_puts(&fresh, to);
        cr_assert(eq(int, (int)nas_file_write(ctx, path, fresh.data, fresh.len, 0644), NAS_OK));
        nas_buf_deinit(&fresh);
    } else {
        cr_expect(equal,
                  "%s differs from the key table: NAS_GOLDEN_WRITE=1 make check-search, then "
                  "review the diff",
                  path);
    }
    nas_buf_deinit(&reference);
    nas_buf_deinit(&file);
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

Test(search_config, every_failed_allocation_is_reported_and_leaks_nothing) {
    static const char text[] =
        "[eval]\nbatch = 8\nbatchs = 1\n[[device]]\n[constraints]\nmacs = [\"<= 5\", \"<= 6\"]\n";
    static const char *const sets[] = {"space.residual=[8, 16, 8]", "device.threads=2",
                                       "data.train=a b"};
    for (int legal = 0; legal <= 1; legal++) {
        const char *input = legal ? "[eval]\nbatch = 8\n[constraints]\nmacs = \"<= 5\"\n" : text;
        for (long n = 1;; n++) {
            cr_assert(n < 5000, "never ran clean");
            const long live = nas_mem_live();
            nas_buf json = {0}, errors = {0};
            nas_mem_fail_after(n);
            const nas_status status =
                nas_config_parse(ctx, "t", input, strlen(input), sets, 3, NULL, &json, &errors);
            nas_mem_fail_after(0);
            nas_buf_deinit(&json);
            nas_buf_deinit(&errors);
            cr_assert(eq(long, nas_mem_live(), live), "allocation %ld leaked", n);
            if (status != NAS_ERR_NOMEM) {
                cr_assert(eq(int, (int)status, legal ? (int)NAS_OK : (int)NAS_ERR_INVALID),
                          "allocation %ld", n);
                break;
            }
        }
    }
}
