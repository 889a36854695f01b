/* oneshot_report.c - what became of the accuracy and the bytes: for people on stdout, and as JSON for the recipe. */
#include "search/oneshot.h"

#include <inttypes.h>
#include <stdio.h>

nas_status nas_oneshot_report(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *graph,
                              const nas_layer_scheme *schemes, const nas_layer_result *results,
                              nas_buf *facts) {
    nas_oneshot_score dense = {0}, small = {0};
    uint64_t bytes = 0, weights = 0, zeros = 0;
    int solvers[NAS_SOLVER_COUNT] = {0};
    nas_status status = nas_oneshot_evaluate(ctx, o, o->model, NAS_CLASS_REPORT, &dense);
    if (status == NAS_OK) status = nas_oneshot_evaluate(ctx, o, graph, NAS_CLASS_REPORT, &small);
    if (status == NAS_OK) status = nas_oneshot_bytes(ctx, o, graph, schemes, &bytes);
    if (status != NAS_OK) return status;
    for (size_t i = 0; i < o->n_layers; i++) {
        weights += results[i].weights;
        zeros += results[i].zeros;
        solvers[results[i].solver]++;
    }
    printf("data            %s\n", nas_class_data_describe(o->data));
    printf("top-1           %.2f %% of %zu report images, before %.2f %%\n", 100 * small.top1,
           small.images, 100 * dense.top1);
    printf("cross-entropy   %.4f, before %.4f\n", small.cross_entropy, dense.cross_entropy);
    printf("weights         %" PRIu64 " bytes, as floats %" PRIu64 "; %.1f %% of them are zero\n",
           bytes, 4 * weights, 100 * (double)zeros / (double)weights);
    printf("solver          %d layers exact, %d blocked, %d by magnitude\n",
           solvers[NAS_SOLVER_EXACT], solvers[NAS_SOLVER_BLOCKED], solvers[NAS_SOLVER_MAGNITUDE]);
    nas_json js = nas_json_begin(facts);
    const struct {
        const char *key;
        double value;
    } numbers[] = {{"report_top1", small.top1},
                   {"dense_report_top1", dense.top1},
                   {"report_cross_entropy", small.cross_entropy},
                   {"dense_report_cross_entropy", dense.cross_entropy},
                   {"weight_bytes", (double)bytes},
                   {"dense_weight_bytes", 4 * (double)weights}};
    nas_json_object(&js);
    nas_json_key(&js, "data");
    nas_json_string(&js, nas_class_data_describe(o->data));
    nas_json_key(&js, "report_hash");
    nas_json_string(&js, nas_class_data_hash(o->data, NAS_CLASS_REPORT));
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        nas_json_key(&js, numbers[i].key);
        nas_json_double(&js, numbers[i].value);
    }
    nas_json_object_end(&js);
    return nas_buf_status(ctx, facts);
}
