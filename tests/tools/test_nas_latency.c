/* test_nas_latency.c - the program as people start it, on synthetic devices whose truth the tests know. */
#include "core/core.h"
#include "tests/tools/program.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static nas_ctx *ctx;
static char folder[64], db_path[128], program[4096];

static void setup(void) {
    ctx = nas_ctx_new();
    (void)snprintf(folder, sizeof folder, "%s/nas-latency-XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    cr_assert(ne(ptr, mkdtemp(folder), NULL));
    (void)snprintf(db_path, sizeof db_path, "%s/lat.db", folder);
    tool_program("nas-latency", program);
}

static void teardown(void) {
    cr_assert(eq(int, (int)nas_remove_tree(ctx, folder), NAS_OK));
    nas_ctx_free(ctx);
}

TestSuite(tools_nas_latency, .init = setup, .fini = teardown, .timeout = 300);

enum { WORDS_MAX = 40 };

/* Runs "nas-latency <command> --db DB <words...>", words split at blanks. */
static nas_process_result run(const char *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static nas_process_result run(const char *command, const char *format, ...) {
    char words[4096];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(words, sizeof words, format, args);
    va_end(args);
    const char *argv[WORDS_MAX] = {program, command, "--db", db_path};
    int n = 4;
    char *save = NULL;
    for (char *word = strtok_r(words, " ", &save); word != NULL; word = strtok_r(NULL, " ", &save))
        argv[n++] = word;
    argv[n] = NULL;
    nas_process_options options = nas_process_options_default();
    options.argv = argv;
    options.timeout_ms = 250000;
    nas_process_result result = {0};
    cr_assert(eq(int, (int)nas_process_run(ctx, &options, &result), NAS_OK), "%s",
              nas_ctx_message(ctx));
    return result;
}

static void done(nas_process_result r, int code, const char *part) {
    cr_assert(eq(int, (int)r.exit_code, code), "%s%s", r.out.data == NULL ? "" : r.out.data,
              r.err.data == NULL ? "" : r.err.data);
    const char *said = code == 0 ? r.out.data : r.err.data;
    if (part != NULL)
        cr_assert(said != NULL && strstr(said, part) != NULL, "'%s' is not in '%s'", part,
                  said == NULL ? "" : said);
    nas_process_result_deinit(&r);
}

static json_t *object(nas_process_result r) {
    cr_assert(eq(int, (int)r.exit_code, 0), "%s", r.err.data == NULL ? "" : r.err.data);
    json_t *root = json_loadb(r.out.data, r.out.len, 0, NULL);
    const bool is_object = json_is_object(root);
    cr_assert(is_object, "%s", r.out.data);
    nas_process_result_deinit(&r);
    return root;
}

static double number(const json_t *root, const char *key) {
    const bool is_number = json_is_number(json_object_get(root, key));
    cr_assert(is_number, "no number '%s'", key);
    return json_number_value(json_object_get(root, key));
}

/* A device that takes base + a*conv1x1 + b*conv3x3 + c*pool, with a little noise: ms of a NAS-Bench-201 cell. */
static double truth(const char *ops, const double *cost) {
    double ms = cost[0];
    for (int e = 0; e < 6; e++)
        ms += cost[1] * (ops[e] == '2') + cost[2] * (ops[e] == '3') + cost[3] * (ops[e] == '4');
    return ms;
}

static const char *path_of(const char *name) {
    static char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_file(const char *name, const nas_buf *text) {
    cr_assert(
        eq(int, (int)nas_file_write(ctx, path_of(name), text->data, text->len, 0600), NAS_OK));
}

enum { DEVICES = 3 };
static const double costs[DEVICES][4] = {
    {1, 0.2, 1.5, 0.3}, {3, 0.5, 2, 0.2}, {0.5, 0.4, 0.9, 0.8}};

/* n different cells on every device: columns ops, a_ms, b_ms, c_ms. */
static void write_table(const char *name, int n, uint64_t seed) {
    nas_buf text = {0};
    nas_rng rng = nas_rng_stream(seed, 0, "table");
    nas_buf_puts(&text, "ops,a_ms,b_ms,c_ms\n");
    for (int i = 0; i < n; i++) {
        char ops[7] = "";
        int rest =
            (i * 37 + (int)(seed % 5)) % 15625; /* 37 has no divisor of 15625: all different */
        for (int e = 0; e < 6; e++, rest /= 5)
            ops[e] = (char)('0' + rest % 5);
        nas_buf_printf(&text, "%s", ops);
        for (int d = 0; d < DEVICES; d++)
            nas_buf_printf(&text, ",%.6f",
                           truth(ops, costs[d]) * (1 + 0.01 * nas_rng_normal(&rng)));
        nas_buf_puts(&text, "\n");
    }
    write_file(name, &text);
    nas_buf_deinit(&text);
}

static void import_all(void) {
    write_table("t.csv", 420, 1);
    for (int d = 0; d < DEVICES; d++)
        done(run("import",
                 "--space nb201 --device dev%c --arch-col ops --value-col %c_ms --unit ms "
                 "-f value %s",
                 'A' + d, 'a' + d, path_of("t.csv")),
             0, "420");
}

Test(tools_nas_latency, a_model_of_a_device_is_fitted_kept_and_asked) {
    import_all();
    json_t *fit = object(run("fit", "--device devA --train 200 --test rest --seed 3 -f json"));
    cr_assert(eq(dbl, number(fit, "n_train"), 200.0));
    cr_assert(eq(dbl, number(fit, "n_test"), 220.0));
    cr_assert(number(fit, "spearman") > 0.98, "%g", number(fit, "spearman"));
    cr_assert(number(fit, "within10") > 0.95);
    cr_assert(number(fit, "mape") < 0.03);
    static const char *const keys[] = {"kendall", "rmse",  "within5",          "coverage90",
                                       "width90", "fit_s", "predictions_per_s"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        (void)number(fit, keys[i]);
    json_decref(fit);
    json_t *answer = object(run("predict", "--device devA --arch 231430 -f json"));
    const double value = number(answer, "value"), expected = truth("231430", costs[0]);
    cr_assert(value > 0.93 * expected && value < 1.07 * expected, "%g, not %g", value, expected);
    cr_assert(number(answer, "lo") < value && value < number(answer, "hi"));
    cr_assert(json_array_size(json_object_get(answer, "layers")) > 50);
    json_decref(answer);
    done(run("predict", "--device devA --arch 231430"), 0, "s1c1.e01");
    done(run("eval", "--device devA -f value"), 0, "gp/");
    done(run("list", "-f csv"), 0, "devB,nb201,latency,420");
    done(run("explain", "--device devA"), 0, "\"features\"");
    done(run("export", "--device devB -f csv"), 0, "device,space,quantity,arch,value,unit,source");
    done(run("export", "--device devA --model latest"), 0, "{");
}

Test(tools_nas_latency, eval_on_a_file_leaves_out_what_the_database_has) {
    import_all();
    done(run("fit", "--device devA --train 200"), 0, NULL);
    write_table("more.csv", 700, 1); /* the first 420 are the known ones */
    json_t *eval = object(run("eval", "--device devA --arch-col ops --value-col a_ms -f json %s",
                              path_of("more.csv")));
    cr_assert(eq(dbl, number(eval, "n_test"), 280.0));
    cr_assert(number(eval, "spearman") > 0.97);
    json_decref(eval);
    done(run("eval", "--device devA --arch-col ops --value-col a_ms %s", path_of("t.csv")), 2,
         "0 of its 420 architectures are new");
}

Test(tools_nas_latency, a_new_device_takes_ten_samples_and_other_devices) {
    import_all();
    json_t *t = object(run("transfer", "--from devA,devB --to devC --samples 10 --source-train 200 "
                                       "--seed 2 -f json"));
    cr_assert(eq(dbl, number(t, "n_train"), 10.0));
    cr_assert(eq(dbl, number(t, "n_test"), 220.0));
    cr_assert(number(t, "spearman") > 0.8, "%g", number(t, "spearman"));
    const json_t *options = json_object_get(t, "options");
    cr_assert(eq(sz, json_array_size(json_object_get(options, "measured")), (size_t)10));
    json_decref(t);
    done(run("transfer", "--from devA --to devA"), 2, "names the target 'devA' itself");
    done(run("transfer", "--from devA,nobody --to devC"), 1, "no latency of device 'nobody'");
    done(run("transfer", "--from devA --to devC --samples 500"), 1, "--samples 500");
}

Test(tools_nas_latency, a_file_with_a_mistake_changes_nothing) {
    nas_buf text = {0};
    nas_buf_puts(&text, "ops,ms\n421211,1\n000000,-1\n");
    write_file("bad.csv", &text);
    nas_buf_clear(&text);
    nas_buf_puts(&text, "ops,ms\n333333,4\n");
    write_file("good.csv", &text);
    nas_buf_deinit(&text);
    char good[256];
    (void)snprintf(good, sizeof good, "%s", path_of("good.csv"));
    static const char options[] = "--space nb201 --device x --arch-col ops --value-col ms";
    done(run("import", "%s %s %s", options, good, path_of("bad.csv")), 2,
         "row 3: value '-1' is not above 0");
    done(run("export", "--device x"), 1, "no latency of device 'x'");
    done(run("import", "%s %s", options, good), 0, NULL);
    done(run("import", "%s %s", options, good), 2, "in the database already");
    done(run("import", "%s --replace %s", options, good), 0, NULL);
    done(run("export", "--device x -f csv"), 0, "333333,4,ms");
}

Test(tools_nas_latency, energies_are_kept_apart_from_latencies) {
    nas_buf text = {0};
    nas_buf_puts(&text, "ops,ms,e\n333333,4,8\n");
    write_file("e.csv", &text);
    nas_buf_deinit(&text);
    done(run("import", "--space nb201 --device x --arch-col ops --value-col e --unit mJ %s",
             path_of("e.csv")),
         0, "energy");
    done(run("export", "--device x"), 1, "no latency of device 'x'");
    done(run("export", "--device x --energy -f csv"), 0, "333333,8,mJ");
}

Test(tools_nas_latency, wrong_usage_says_what_is_meant) {
    done(run("train", "--device x"), 2, "command 'train' is unknown");
    done(run("fit", "-f json"), 2, "which device?");
    done(run("import", "--device x --space nb301 --arch-col a --value-col b f.csv"), 1,
         "no space 'nb301'");
    done(run("import", "--device x --space nb201 --arch-col a --value-col b /nonexistent.csv"), 1,
         "cannot open '/nonexistent.csv'");
    done(run("import", "--device x --space nb201 --unit parsec f.csv"), 2, "unit 'parsec'");
    done(run("import", "--device x"), 2, "which file?");
    done(run("fit", "--device nobody"), 1, "no latency of device 'nobody'");
    done(run("transfer", "--device x"), 2, "--from A,B,C");
    done(run("collect", "--device local --kernels gru"), 2, "use sr, conv, dwconv");
    done(run("collect", "--device local --space sr --kernels conv"), 2, "--space kernel");
    done(run("collect", "--device local --space network"), 2, "none can be drawn");
}

Test(tools_nas_latency, collect_times_layers_until_the_error_is_reached_and_goes_on_later) {
    json_t *first = object(
        run("collect", "--device simulated --kernels conv,dwconv --time 100s --error 0.5 -f json"));
    const double rows = number(first, "n_train");
    cr_assert(rows >= 44, "%g",
              rows); /* 24 before the first model, then 20 random ones and the others */
    cr_assert(number(first, "median_error") < 0.5);
    const bool was_reached = json_is_true(json_object_get(first, "error_reached"));
    cr_assert(was_reached);
    json_decref(first);
    json_t *more = object(run("collect", "--device simulated --time 3s --error 0.0001 -f json"));
    cr_assert(number(more, "n_train") > rows);
    json_decref(more);
    done(run("predict", "--device simulated --arch %s", "conv"), 2, "kernel 'conv'");
    done(run("export", "--device simulated -f csv"), 0, "dwconv h");
}

/* Lines of the exported table; `different` is false when an architecture is there twice. */
static int exported_rows(const char *device, bool *different) {
    nas_process_result r = run("export", "--device %s -f csv", device);
    cr_assert(eq(int, (int)r.exit_code, 0));
    char *lines[512], *save = NULL;
    int n = 0;
    *different = true;
    for (char *l = strtok_r(r.out.data, "\n", &save); l != NULL; l = strtok_r(NULL, "\n", &save)) {
        cr_assert(n < 512);
        lines[n] = l;
        size_t arch = 0; /* where the fourth column ends */
        for (int column = 0; column < 4; column++)
            arch += strcspn(l + arch, ",") + (size_t)(l[arch + strcspn(l + arch, ",")] == ',');
        for (int i = 0; i < n; i++)
            *different = *different && strncmp(lines[i], l, arch) != 0;
        n++;
    }
    nas_process_result_deinit(&r);
    return n - 1; /* the header */
}

Test(tools_nas_latency, layers_compiled_together_are_timed_here_and_kept_once_each) {
    const char *const words = "--device local --kernels pointwise --until-error 0.0001 -f json";
    json_t *first = object(run("collect", "%s --time 1s", words));
    const double rows = number(first, "n_train");
    bool different = false;
    cr_assert(rows >= 1, "%g", rows); /* of a round that was begun one layer at least is timed */
    cr_assert(eq(int, exported_rows("local", &different), (int)rows));
    cr_assert(different);
    json_decref(first);
    json_t *more = object(run("collect", "%s --time 1s", words));
    cr_assert(number(more, "n_train") > rows);
    cr_assert(eq(int, exported_rows("local", &different), (int)number(more, "n_train")));
    cr_assert(different);
    json_decref(more);
    done(run("export", "--device local -f csv"), 0, "k1 s1");
}

Test(tools_nas_latency, networks_of_a_space_are_collected_and_foretold) {
    json_t *q =
        object(run("collect", "--device simulated --space nb201 --time 100s --error 0.5 -f json"));
    cr_assert(number(q, "n_train") >= 44, "%g", number(q, "n_train"));
    cr_assert(number(q, "within10") > 0.5, "%g", number(q, "within10"));
    json_decref(q);
    done(run("export", "--device simulated -f csv"), 0, "simulated,nb201,latency");
    done(run("predict", "--device simulated --arch 421211"), 0, "421211");
}

/* Every layer of a round is timed again beside the next one, and the two times are compared. A busy machine needs longer to come
 * to a second round. */
Test(tools_nas_latency, collect_says_how_well_the_machine_repeats_itself) {
    double repeats = 0;
    json_t *q = NULL;
    for (int seconds = 10; seconds <= 160 && repeats < 1; seconds *= 4) {
        json_decref(q);
        q = object(run("collect",
                       "--device local --kernels pointwise --time %ds --until-error 0.0001 -f json",
                       seconds));
        repeats = number(q, "n_repeats");
    }
    cr_assert(repeats >= 1 && repeats <= number(q, "n_train"));
    cr_assert(number(q, "repeat_error") > 0, "two timings that agree to the last digit");
    cr_assert(number(q, "repeat_within5") <= number(q, "repeat_within10"));
    json_decref(q);
    q = object(
        run("collect", "--device simulated --kernels conv --time 1s --until-error 0.0001 -f json"));
    cr_assert(number(q, "n_repeats") == 0, "nothing is timed on a simulated device");
    json_decref(q);
}

Test(tools_nas_latency, networks_of_a_space_are_timed_here) {
    json_t *q = object(run(
        "collect", "--device local --space nb201:8x8x3 --time 1s --until-error 0.0001 -f json"));
    bool different = false;
    const double rows = number(q, "n_train");
    cr_assert(rows >= 1, "%g", rows);
    cr_assert(eq(int, exported_rows("local", &different), (int)rows));
    json_decref(q);
}
