/* config_names.c - "did you mean": the legal name nearest to one that is not, by edit distance.
 * Distance: optimal string alignment (Damerau 1964: insertion, deletion, replacement, swap of neighbours). */
#include "search/config_internal.h"

#include <string.h>

enum { NAME_MAX_BYTES = 64 };

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

/* SIZE_MAX for names too long to be a slip of the finger. */
static size_t edit_distance(const char *a, const char *b) {
    const size_t n = strlen(a), m = strlen(b);
    if (n > NAME_MAX_BYTES || m > NAME_MAX_BYTES) return SIZE_MAX;
    size_t rows[3][NAME_MAX_BYTES + 1];
    size_t *before = rows[0], *above = rows[1], *row = rows[2];
    for (size_t j = 0; j <= m; j++)
        above[j] = j;
    for (size_t i = 1; i <= n; i++) {
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            const size_t replaced = above[j - 1] + (a[i - 1] != b[j - 1] ? 1 : 0);
            row[j] = smaller(replaced, smaller(above[j], row[j - 1]) + 1);
            const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped) row[j] = smaller(row[j], before[j - 2] + 1);
        }
        size_t *oldest = before;
        before = above;
        above = row;
        row = oldest;
    }
    return above[m];
}

/* A third of the letters may be wrong, one in very short names; a name that only lacks its end is near, too. */
static bool is_near(size_t distance, const char *name, const char *legal) {
    const size_t n = strlen(name);
    if (n >= 4 && strncmp(name, legal, n) == 0) return true;
    const size_t allowed = n < 4 ? 1 : n < 6 ? 2 : n / 3;
    return distance <= allowed && distance < n;
}

static const char *leaf_of(const char *path) {
    const char *dot = strrchr(path, '.');
    return dot == NULL ? path : dot + 1;
}

static bool same_section(const char *a, const char *b) {
    const size_t n = strcspn(a, "."), m = strcspn(b, ".");
    return n == m && memcmp(a, b, n) == 0;
}

/* Keys of the same section are looked at first; then a key of the same or a near name anywhere. */
const char *nas__config_nearest_key(const char *path) {
    size_t n = 0;
    const nas__config_key *keys = nas__config_keys(&n);
    for (int elsewhere = 0; elsewhere <= 1; elsewhere++) {
        const char *best = NULL;
        size_t best_distance = SIZE_MAX;
        for (size_t i = 0; i < n; i++) {
            if (elsewhere == 0 && !same_section(path, keys[i].path)) continue;
            const char *name = leaf_of(path), *legal = leaf_of(keys[i].path);
            const size_t distance = edit_distance(name, legal);
            if (distance >= best_distance || !is_near(distance, name, legal)) continue;
            best = keys[i].path;
            best_distance = distance;
        }
        if (best != NULL) return best;
    }
    return NULL;
}

const char *nas__config_nearest_section(const char *name) {
    size_t n = 0;
    const nas__config_section *sections = nas__config_sections(&n);
    const char *best = NULL;
    size_t best_distance = SIZE_MAX;
    for (size_t i = 0; i < n; i++) {
        const size_t distance = edit_distance(name, sections[i].name);
        if (distance >= best_distance || !is_near(distance, name, sections[i].name)) continue;
        best = sections[i].name;
        best_distance = distance;
    }
    return best;
}

const char *nas__config_nearest_metric(const char *name) {
    const char *best = NULL;
    size_t best_distance = SIZE_MAX;
    for (int i = 0; i < NAS_METRIC_COUNT; i++) {
        const char *legal = nas_metric_name((nas_metric)i);
        const size_t distance = edit_distance(name, legal);
        if (distance >= best_distance || !is_near(distance, name, legal)) continue;
        best = legal;
        best_distance = distance;
    }
    return best;
}
