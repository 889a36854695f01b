/* npy.h - arrays of NumPy (format 1.0 to 3.0): a header of text, then raw numbers. Part of the main program of emitted
 * executables, so: C99 alone. Stands on model.h for the extents. */
#ifndef NPY_H
#define NPY_H

#include "model.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NPY_PREFIX = 10, NPY_HEADER = 128, NPY_TEXT_MAX = 4096 };

static int is_npy(const char *path) {
    const size_t n = strlen(path);
    return n > 4 && strcmp(path + n - 4, ".npy") == 0;
}

/* Does "'shape': (1, 3, 8, 8)" in the header say whole frames, axis by axis? The last extents are those of the input
 * ([C][H][W], or [C] where an image is one pixel); what stands before them counts frames. */
static int npy_fits(const char *text) {
    const unsigned long input[3] = {(unsigned long)MODEL_INPUT_C, (unsigned long)MODEL_INPUT_H,
                                    (unsigned long)MODEL_INPUT_W};
    unsigned long extent[8];
    int n = 0;
    const char *p = strstr(text, "'shape':");
    if (p != NULL) p = strchr(p, '(');
    if (p == NULL) return 0;
    for (p++; *p != ')';) {
        char *end = NULL;
        if (n == 8) return 0;
        extent[n] = strtoul(p, &end, 10);
        if (end == p || extent[n++] == 0) return 0;
        p = end + strspn(end, ", ");
    }
    if (n >= 3 && memcmp(extent + n - 3, input, sizeof input) == 0) return 1;
    return n >= 1 && n <= 2 && input[1] == 1 && input[2] == 1 && extent[n - 1] == input[0];
}

/* Reads over the header; -1 with a message unless it announces whole frames of 32-bit floats. */
static int npy_open(FILE *in, const char *path) {
    unsigned char prefix[NPY_PREFIX + 2];
    char text[NPY_TEXT_MAX + 1];
    size_t size = 0;
    if (fread(prefix, 1, NPY_PREFIX, in) != NPY_PREFIX || memcmp(prefix, "\x93NUMPY", 6) != 0) {
        fprintf(stderr, "%s: no NumPy array\n", path);
        return -1;
    }
    size = (size_t)prefix[8] | (size_t)prefix[9] << 8;
    if (prefix[6] > 1) { /* two more bytes of length */
        if (fread(prefix + NPY_PREFIX, 1, 2, in) != 2) size = NPY_TEXT_MAX + 1;
        size |= (size_t)prefix[10] << 16 | (size_t)prefix[11] << 24;
    }
    if (size > NPY_TEXT_MAX || fread(text, 1, size, in) != size) {
        fprintf(stderr, "%s: the header of the NumPy array is cut off or longer than %d bytes\n",
                path, NPY_TEXT_MAX);
        return -1;
    }
    text[size] = '\0';
    if (strstr(text, "'<f4'") == NULL || strstr(text, "'fortran_order': False") == NULL ||
        !npy_fits(text)) {
        fprintf(stderr,
                "%s: need '<f4' in C order and whole frames of %d x %d x %d numbers, the array is "
                "%.*s\n",
                path, MODEL_INPUT_C, MODEL_INPUT_H, MODEL_INPUT_W, (int)strcspn(text, "\n"), text);
        return -1;
    }
    return 0;
}

/* The header before the numbers, again when the frames have been counted. */
static int npy_header(FILE *out, long frames) {
    char header[NPY_HEADER + 1];
    (void)snprintf(
        header, sizeof header,
        "%c%s%c%c%c%c{'descr': '<f4', 'fortran_order': False, 'shape': (%ld, %d, %d, %d), }",
        '\x93', "NUMPY", 1, 0x7f, NPY_HEADER - NPY_PREFIX, 0x7f, frames, MODEL_OUTPUT_C,
        MODEL_OUTPUT_H, MODEL_OUTPUT_W);
    const size_t used = strlen(header);
    memset(header + used, ' ', NPY_HEADER - used);
    header[7] = 0; /* version 1.0, and the high byte of the length */
    header[9] = 0;
    header[NPY_HEADER - 1] = '\n';
    return fwrite(header, 1, NPY_HEADER, out) == NPY_HEADER ? 0 : -1;
}

#endif
