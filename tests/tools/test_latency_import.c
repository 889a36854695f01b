/* test_latency_import.c - measurements of others: what is read, and every kind of mistake with its row. */
#include "tools/latency_import.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

static nas_ctx *ctx;
static long blocks_before;

static void setup(void) {
    blocks_before = nas_mem_live();
    ctx = nas_ctx_new();
}
static void teardown(void) {
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), blocks_before));
}
TestSuite(tools_latency_import, .init = setup, .fini = teardown, .timeout = 60);

typedef nas_status (*parser)(nas_ctx *, const nas_encoder *, const nas_import_options *, char *,
                             size_t, nas_import *);

/* The rows as "arch=micro ..." or the message. */
static void read_with(parser parse, const char *space, const nas_import_options *options,
                      const char *text, nas_buf *out) {
    nas_encoder *encoder = NULL;
    cr_assert(eq(int, (int)nas_encoder_new(ctx, space, &encoder), NAS_OK));
    char *copy = nas_strdup(ctx, text);
    nas_import import = {0};
    nas_status status = parse(ctx, encoder, options, copy, strlen(copy), &import);
    if (status == NAS_OK) status = nas_import_check(ctx, &import, "t");
    for (size_t i = 0; i < import.n && status == NAS_OK; i++)
        nas_buf_printf(out, "%s%s=%g", i == 0 ? "" : " ", import.rows[i].arch,
                       import.rows[i].value);
    if (status != NAS_OK) nas_buf_puts(out, nas_ctx_message(ctx));
    nas_import_deinit(&import);
    nas_free(copy);
    nas_encoder_free(encoder);
}

static void expect(parser parse, const char *space, const nas_import_options *options,
                   const char *text, const char *part) {
    nas_buf said = {0};
    read_with(parse, space, options, text, &said);
    cr_assert(ne(ptr, strstr(said.data, part), NULL), "'%s'\n gave '%s'\n not '%s'", text,
              said.data, part);
    nas_buf_deinit(&said);
}

Test(tools_latency_import, csv_rows_are_read_in_the_unit_of_the_column) {
    static const struct {
        const char *column, *text, *rows;
        nas_unit unit;
    } cases[] = {
        {"ms", "ops,ms\n421211,1.5\n000000,2\n", "000000=2000 421211=1500", NAS_UNIT_MS},
        {"lat_ms", "ops,lat_ms\n421211,1.5\n", "421211=1500", NAS_UNIT_NONE},
        {"lat [us]", "lat [us],ops\n3,421211\n", "421211=3", NAS_UNIT_NONE},
        {"energy_mj", "ops,energy_mj\n421211,2\n", "421211=2000", NAS_UNIT_NONE},
        {"t", "ops,t\n421211,1.5 ms\n", "421211=1500", NAS_UNIT_MS},
        {"t",
         "ops,t\n|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|"
         "skip_connect~1|skip_connect~2|,1\n",
         "421211=1", NAS_UNIT_US},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const nas_import_options o = {
            .arch_columns = "ops", .value_column = cases[i].column, .unit = cases[i].unit};
        expect(nas_import_csv, "nb201", &o, cases[i].text, cases[i].rows);
    }
}

Test(tools_latency_import, every_mistake_of_a_table_is_reported_with_its_row) {
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"ops,ms\n421211,-1\n", "row 2: value '-1' is not above 0"},
        {"ops,ms\n421211,0\n", "row 2: value '0' is not above 0"},
        {"ops,ms\n421211,nan\n", "row 2: value 'nan' is not finite"},
        {"ops,ms\n421211,1e999\n", "row 2: value '1e999' is not finite"},
        {"ops,ms\n421211,inf\n", "row 2: value 'inf' is not finite"},
        {"ops,ms\n421211,\n", "row 2: the value is missing"},
        {"ops,ms\n421211,fast\n", "row 2: value 'fast' is no number"},
        {"ops,ms\n421211,0x10\n", "row 2: value '0x10' is no number"},
        {"ops,ms\n421211,1\n333333,1500 us\n", "row 3: value '1500 us' is not in ms"},
        {"ops,ms\n421211,1\n921211,1\n", "row 3: architecture '921211': "},
        {"ops,ms\n421211,1\n000000,1\n421211,2\n",
         "row 4: architecture '421211' is in row 2 already"},
        {"ops,ms\n421211,-1\n921211,1\n000000,x\n", "t: 3 mistakes, nothing is imported"},
        {"ops,ms\n421211,1,2\n", "row 2 has 3 fields, the header has 2"},
        {"ops,us\n421211,1\n", "no column 'ms'; the file has: ops, us"},
        {"name,ms\n421211,1\n", "no column 'ops'; the file has: name, ms"},
        {"ops,ms,ms\n421211,1,1\n", "two columns are named 'ms'"},
        {"ops,ms\n", "no rows in it"},
        {"", "the file is empty"},
    };
    const nas_import_options o = {.arch_columns = "ops", .value_column = "ms", .unit = NAS_UNIT_MS};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect(nas_import_csv, "nb201", &o, cases[i].text, cases[i].message);
    const nas_import_options wrong = {
        .arch_columns = "ops", .value_column = "lat_us", .unit = NAS_UNIT_MS};
    expect(nas_import_csv, "nb201", &wrong, "ops,lat_us\n421211,1\n",
           "column 'lat_us' is in us by its name, not in ms");
    const nas_import_options none = {.arch_columns = "ops", .value_column = "t"};
    expect(nas_import_csv, "nb201", &none, "ops,t\n421211,1\n", "which unit has column 't'?");
}

Test(tools_latency_import, only_the_first_twenty_mistakes_are_listed) {
    nas_buf text = {0}, said = {0};
    nas_buf_puts(&text, "ops,ms\n");
    for (int i = 0; i < 500; i++)
        nas_buf_puts(&text, "421211,-1\n");
    const nas_import_options o = {.arch_columns = "ops", .value_column = "ms", .unit = NAS_UNIT_MS};
    read_with(nas_import_csv, "nb201", &o, text.data, &said);
    cr_assert(ne(ptr, strstr(said.data, "500 mistakes"), NULL));
    cr_assert(ne(ptr, strstr(said.data, "row 21:"), NULL));
    cr_assert(eq(ptr, strstr(said.data, "row 22:"), NULL));
    nas_buf_deinit(&said);
    nas_buf_deinit(&text);
}

Test(tools_latency_import, an_architecture_may_take_several_columns) {
    const nas_import_options o = {.arch_columns = "ks,expand,depth,resolution",
                                  .value_column = "gpu_ms"};
    expect(nas_import_csv, "ofa", &o,
           "ks,expand,depth,resolution,gpu_ms\n3 5 5 7 3 3 5 3 3 3 5 5 3 5 3 3 5 7 7 3,6 3 3 3 4 3 "
           "3 4 "
           "4 4 4 4 6 6 4 4 6 4 3 6,4 4 2 2 4,132,2.5\n",
           "ofa r132 | 3,6 5,3 5,3 7,3 | 3,4 3,3 5,3 3,4 | 3,4 3,4 | 3,6 5,6 | 5,6 7,4 7,3 "
           "3,6=2500");
}

Test(tools_latency_import, logs_of_benchmark_model_give_their_average) {
    static const char log[] =
        "STARTING!\nLog parameter values verbosely: [0]\nGraph: "
        "[/data/local/tmp/mobile_v2.tflite]\n"
        "INFO: Loaded model /data/local/tmp/mobile_v2.tflite\n"
        "Inference timings in us: Init: 5685, First inference: 18535, Warmup (avg): 14462.3, "
        "Inference (avg): 14575.2\n";
    const nas_import_options none = {0}, named = {.arch = "421211"};
    expect(nas_import_benchmark_model, "network", &none, log, "mobile_v2=14575.2");
    expect(nas_import_benchmark_model, "nb201", &named, log, "421211=14575.2");
    expect(nas_import_benchmark_model, "nb201", &none, log, "row 5: architecture 'mobile_v2'");
    expect(nas_import_benchmark_model, "network", &none,
           "Inference timings in us: Inference (avg): 5\n",
           "row 1: the log does not name its model");
    expect(nas_import_benchmark_model, "network", &none, "Graph: [a.tflite]\nERROR: failed\n",
           "no line \"Inference timings in us");
    expect(nas_import_benchmark_model, "network", &none,
           "Graph: [a.tflite]\nInference timings in us: Inference (avg): nan\n", "row 2: 'a': nan");
}

Test(tools_latency_import, google_benchmark_is_read_as_json_and_as_console) {
    const nas_import_options none = {0};
    static const char json[] =
        "{\"context\":{},\"benchmarks\":["
        "{\"name\":\"net/a\",\"real_time\":2.5,\"cpu_time\":2,\"time_unit\":\"ms\"},"
        "{\"name\":\"net/b\",\"real_time\":7,\"time_unit\":\"us\"},"
        "{\"name\":\"net/b\",\"real_time\":9,\"time_unit\":\"us\"},"
        "{\"name\":\"net/b_mean\",\"real_time\":99,\"time_unit\":\"us\"},"
        "{\"name\":\"net/b_median\",\"real_time\":8,\"time_unit\":\"us\"},"
        "{\"name\":\"net/b_cv\",\"real_time\":0.1,\"time_unit\":\"\"}]}";
    expect(nas_import_google_benchmark, "network", &none, json, "net/a=2500 net/b=8");
    static const char console[] =
        "2024-01-01T00:00:00\nRunning ./b\n-----\nBenchmark   Time    CPU   Iterations\n-----\n"
        "BM/421211      123 ns     120 ns    1000\nBM/000000      1.5 ms     1 ms    10\n";
    expect(nas_import_google_benchmark, "nb201", &none, console, "000000=1500 421211=0.123");
    expect(nas_import_google_benchmark, "network", &none,
           "{\"benchmarks\":[{\"name\":\"a\",\"real_time\":1}]}",
           "row 1: needs name, real_time and time_unit");
    expect(nas_import_google_benchmark, "network", &none,
           "{\"benchmarks\":[{\"name\":\"a\",\"error_occurred\":true}]}",
           "row 1: benchmark 'a' failed");
    expect(nas_import_google_benchmark, "network", &none, "{\"benchmarks\":[", "line 1");
    expect(nas_import_google_benchmark, "network", &none, "hello\n", "no result of Google");
}

Test(tools_latency_import, running_out_of_memory_leaks_nothing) {
    nas_encoder *encoder = NULL;
    cr_assert(eq(int, (int)nas_encoder_new(ctx, "nb201", &encoder), NAS_OK));
    const nas_import_options o = {.arch_columns = "ops", .value_column = "ms", .unit = NAS_UNIT_MS};
    nas_status status = NAS_ERR_NOMEM;
    for (long n = 1; n < 100 && status != NAS_OK; n++) {
        char text[] = "ops,ms\n421211,1\n000000,-1\n";
        nas_import import = {0};
        nas_mem_fail_after(n);
        status = nas_import_csv(ctx, encoder, &o, text, strlen(text), &import);
        nas_mem_fail_after(0);
        nas_import_deinit(&import);
    }
    cr_assert(eq(int, (int)status, NAS_OK));
    nas_encoder_free(encoder);
}
