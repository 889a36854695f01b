/* example.c - one frame of raw floats, planar [C][H][W], through the network: ./example in.raw out.raw */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#include "model.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    const size_t in_count = (size_t)MODEL_INPUT_C * MODEL_INPUT_H * MODEL_INPUT_W;
    const size_t out_count = (size_t)MODEL_OUTPUT_C * MODEL_OUTPUT_H * MODEL_OUTPUT_W;
    float *in = malloc(in_count * sizeof *in), *out = malloc(out_count * sizeof *out);
    void *arena = NULL;
    if (posix_memalign(&arena, 64, MODEL_ARENA_BYTES) != 0)
        return fputs("out of memory\n", stderr), 1;
    FILE *from = argc == 3 ? fopen(argv[1], "rb") : NULL;
    if (in == NULL || out == NULL || from == NULL)
        return fputs("usage: example IN OUT\n", stderr), 2;
    if (fread(in, sizeof *in, in_count, from) != in_count)
        return fputs("input is too short\n", stderr), 1;
    if (model_open(arena, MODEL_MAX_THREADS) != 0)
        return fputs("cannot start threads\n", stderr), 1;
    model_run(arena, in, out);
    model_close(arena);
    FILE *to = fopen(argv[2], "wb");
    if (to == NULL || fwrite(out, sizeof *out, out_count, to) != out_count || fclose(to) != 0)
        return 1;
    return 0;
}
