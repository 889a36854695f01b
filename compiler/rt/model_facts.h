/* model_facts.h - what the main program asks of model.h, as a constant instead of macros, so that one compiled main
 * program serves every network. Part of emitted programs, so: C99. After model.h it defines the constant; where there is
 * no model.h it takes its place. */
#ifndef MODEL_FACTS_H
#define MODEL_FACTS_H

#include <stddef.h>

typedef struct model_facts {
    const char *name, *graph_hash, *needs;
    int input_c, input_h, input_w, output_c, output_h, output_w, max_threads;
    size_t arena_bytes;
    unsigned long long macs;
    int layers; /* 0: the times of layers are not to be had */
    const char *const *layer_names;
    void (*profile)(void *arena, const float *in, float *out, double *layer_us);
} model_facts;
extern const model_facts the_model;

#ifdef MODEL_H
const model_facts the_model = {
    MODEL_NAME,        MODEL_GRAPH_HASH, MODEL_NEEDS,    MODEL_INPUT_C,  MODEL_INPUT_H,
    MODEL_INPUT_W,     MODEL_OUTPUT_C,   MODEL_OUTPUT_H, MODEL_OUTPUT_W, MODEL_MAX_THREADS,
    MODEL_ARENA_BYTES, MODEL_MACS,       MODEL_LAYERS,
#if MODEL_LAYERS > 0
    model_layer_names, model_profile
#else
    NULL, NULL
#endif
};
#else
#define MODEL_H
#define MODEL_NAME the_model.name
#define MODEL_GRAPH_HASH the_model.graph_hash
#define MODEL_NEEDS the_model.needs
#define MODEL_INPUT_C the_model.input_c
#define MODEL_INPUT_H the_model.input_h
#define MODEL_INPUT_W the_model.input_w
#define MODEL_OUTPUT_C the_model.output_c
#define MODEL_OUTPUT_H the_model.output_h
#define MODEL_OUTPUT_W the_model.output_w
#define MODEL_MAX_THREADS the_model.max_threads
#define MODEL_ARENA_BYTES the_model.arena_bytes
#define MODEL_MACS the_model.macs
int model_open(void *arena, int threads);
void model_run(void *arena, const float *in, float *out);
void model_close(void *arena);
#endif

#endif
