/* data_scan.c - which files of a folder are pictures, and which stored LR image belongs to which HR image.
 * Looks at names only; nothing is opened here. The rules are in eval/data.h at nas_sr_data_options. */
#include "eval/data_internal.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { DEPTH_MAX = 32 };

typedef struct names {
    char **items; /* owned paths */
    size_t n, cap;
} names;

/* Folders already entered, so that a link to a parent ends the walk. */
typedef struct visited {
    dev_t device;
    ino_t inode;
} visited;

typedef struct scan {
    nas_ctx *ctx;
    int32_t scale;
    nas__sr_sources *out;
    visited *seen;
    size_t n_seen, cap_seen;
} scan;

static void names_deinit(names *list) {
    for (size_t i = 0; i < list->n; i++)
        nas_free(list->items[i]);
    nas_free(list->items);
    *list = (names){0};
}

static nas_status names_add(nas_ctx *ctx, names *list, const char *text, size_t len) {
    const nas_status status =
        nas_grow(ctx, &list->items, &list->cap, list->n + 1, sizeof *list->items);
    if (status != NAS_OK) return status;
    char *copy = nas_alloc_array(ctx, len + 1, 1);
    if (copy == NULL) return NAS_ERR_NOMEM;
    memcpy(copy, text, len);
    list->items[list->n++] = copy;
    return NAS_OK;
}

static int by_bytes(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_sort(names *list) {
    if (list->n > 1) qsort(list->items, list->n, sizeof *list->items, by_bytes);
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

/* list_folder - the sorted paths of everything in `path` that does not begin with a dot. What is neither file nor
 * folder counts as a file: reading it fails later, with its name. */
static nas_status list_folder(nas_ctx *ctx, const char *path, names *files, names *folders) {
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return nas_fail(ctx, errno == ENOENT ? NAS_ERR_NOTFOUND : NAS_ERR_IO, "folder %s: %s", path,
                        strerror(errno));
    }
    nas_status status = NAS_OK;
    nas_buf full = {0};
    while (status == NAS_OK) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL) break;
        if (entry->d_name[0] == '.') continue;
        nas_buf_clear(&full);
        nas_buf_printf(&full, "%s/%s", path, entry->d_name);
        status = nas_buf_status(ctx, &full);
        if (status != NAS_OK) break;
        struct stat info;
        const bool is_folder = stat(full.data, &info) == 0 && S_ISDIR(info.st_mode);
        status = names_add(ctx, is_folder ? folders : files, full.data, full.len);
    }
    if (status == NAS_OK && errno != 0) {
        status = nas_fail(ctx, NAS_ERR_IO, "folder %s: %s", path, strerror(errno));
    }
    nas_buf_deinit(&full);
    (void)closedir(dir); /* only read */
    names_sort(files);
    names_sort(folders);
    return status;
}

/* ---- sources ------------------------------------------------------------------------------------------------- */

static void source_deinit(nas__sr_source *source) {
    for (size_t i = 0; i < source->n_hr; i++)
        nas_free(source->hr[i]);
    nas_free(source->lr);
}

void nas__sr_sources_deinit(nas__sr_sources *sources) {
    for (size_t i = 0; i < sources->n; i++)
        source_deinit(&sources->items[i]);
    nas_free(sources->items);
    *sources = (nas__sr_sources){0};
}

/* add_source - one more picture with one HR file; the caller may add cuts and LR to the last item. */
static nas_status add_source(scan *s, const char *hr, const char *lr) {
    nas__sr_sources *out = s->out;
    const nas_status status =
        nas_grow(s->ctx, &out->items, &out->cap, out->n + 1, sizeof *out->items);
    if (status != NAS_OK) return status;
    nas__sr_source source = {0};
    source.hr[0] = nas_strdup(s->ctx, hr);
    source.n_hr = 1;
    if (lr != NULL) source.lr = nas_strdup(s->ctx, lr);
    if (source.hr[0] == NULL || (lr != NULL && source.lr == NULL)) {
        source_deinit(&source);
        return NAS_ERR_NOMEM;
    }
    out->items[out->n++] = source;
    return NAS_OK;
}

static nas_status add_cut(scan *s, const char *hr) {
    nas__sr_source *source = &s->out->items[s->out->n - 1];
    if (source->n_hr == NAS__HR_CUTS_MAX) {
        return nas_fail(s->ctx, NAS_ERR_RANGE, "%s: more than %d HR files share its name", hr,
                        (int)NAS__HR_CUTS_MAX);
    }
    source->hr[source->n_hr] = nas_strdup(s->ctx, hr);
    if (source->hr[source->n_hr] == NULL) return NAS_ERR_NOMEM;
    source->n_hr++;
    return NAS_OK;
}

/* ---- names of HR and LR -------------------------------------------------------------------------------------- */

/* A file name without folder and extension, as a slice. */
typedef struct stem {
    const char *text;
    size_t len;
} stem;

static stem stem_of(const char *path) {
    const char *base = base_name(path);
    const char *dot = strrchr(base, '.');
    return (stem){.text = base, .len = dot == NULL ? strlen(base) : (size_t)(dot - base)};
}

/* lr_stem_of - also drops the "x2" that some sets append to the names of their LR images. */
static stem lr_stem_of(const char *path, int32_t scale) {
    stem s = stem_of(path);
    const char digit = (char)('0' + scale);
    if (s.len > 2 && s.text[s.len - 1] == digit && s.text[s.len - 2] == 'x') s.len -= 2;
    return s;
}

static bool stems_equal(stem a, stem b) {
    return a.len == b.len && memcmp(a.text, b.text, a.len) == 0;
}

/* stem_begins - `a` = `b` followed by something that is no letter or digit: "001_512x512" begins with "001". */
static bool stem_begins(stem a, stem b) {
    return b.len > 0 && a.len > b.len && memcmp(a.text, b.text, b.len) == 0 &&
           !isalnum((unsigned char)a.text[b.len]);
}

/* pair_by_name - owner[i] = index of the LR file of HR file i. Equal names first, then a common beginning.
 * False unless every HR has exactly one LR and every LR at least one HR. */
static bool pair_by_name(const names *hr, const names *lr, int32_t scale, size_t *owner) {
    const size_t none = SIZE_MAX;
    size_t paired_lr = 0;
    for (size_t i = 0; i < hr->n; i++)
        owner[i] = none;
    for (size_t k = 0; k < lr->n; k++) {
        const stem l = lr_stem_of(lr->items[k], scale);
        bool exact = false, any = false;
        for (size_t i = 0; i < hr->n && !exact; i++) {
            exact = stems_equal(stem_of(hr->items[i]), l);
            if (exact && owner[i] != none) return false;
            if (exact) owner[i] = k;
        }
        for (size_t i = 0; i < hr->n && !exact; i++) {
            const stem h = stem_of(hr->items[i]);
            if (!stem_begins(h, l) && !stem_begins(l, h)) continue;
            if (owner[i] != none) return false;
            owner[i] = k;
            any = true;
        }
        paired_lr += exact || any ? 1 : 0;
    }
    for (size_t i = 0; i < hr->n; i++) {
        if (owner[i] == none) return false;
    }
    return paired_lr == lr->n;
}

static nas_status add_paired(scan *s, const names *hr, const names *lr, const size_t *owner) {
    nas_status status = NAS_OK;
    for (size_t k = 0; k < lr->n && status == NAS_OK; k++) {
        bool first = true;
        for (size_t i = 0; i < hr->n && status == NAS_OK; i++) {
            if (owner[i] != k) continue;
            status = first ? add_source(s, hr->items[i], lr->items[k]) : add_cut(s, hr->items[i]);
            first = false;
        }
    }
    return status;
}

/* cut_of - whether the stem ends in "_<width>x<height>"; gives the stem before it and the area. */
static bool cut_of(stem s, stem *picture, uint64_t *area) {
    size_t at = s.len;
    uint64_t side[2] = {0, 0};
    static const char before[2] = {'x', '_'}; /* read backwards: height, then width */
    for (size_t part = 0; part < 2; part++) {
        uint64_t unit = 1;
        const size_t end = at;
        while (at > 0 && isdigit((unsigned char)s.text[at - 1]) && end - at < 6) {
            side[part] += unit * (uint64_t)(s.text[--at] - '0');
            unit *= 10;
        }
        if (at == end || at == 0 || s.text[at - 1] != before[part]) return false;
        at--;
    }
    *picture = (stem){.text = s.text, .len = at};
    *area = side[0] * side[1];
    return at > 0;
}

/* add_largest_cuts - every HR file without LR; of several cuts of one picture the largest. */
static nas_status add_largest_cuts(scan *s, const names *hr) {
    nas_status status = NAS_OK;
    for (size_t i = 0; i < hr->n && status == NAS_OK; i++) {
        stem mine, other;
        uint64_t area = 0, other_area = 0;
        bool largest = true;
        if (cut_of(stem_of(hr->items[i]), &mine, &area)) {
            for (size_t k = 0; k < hr->n && largest; k++) {
                if (k == i || !cut_of(stem_of(hr->items[k]), &other, &other_area)) continue;
                if (!stems_equal(mine, other)) continue;
                largest = other_area < area || (other_area == area && i < k);
            }
        }
        if (largest) status = add_source(s, hr->items[i], NULL);
    }
    return status;
}

/* add_hr_and_lr - the sources of one folder that holds HR/ and perhaps LR_x<scale>/. */
static nas_status add_hr_and_lr(scan *s, const char *folder, const names *hr, const names *lr) {
    if (lr->n == 0) return add_largest_cuts(s, hr);
    size_t *owner = nas_alloc_array(s->ctx, hr->n, sizeof *owner);
    if (owner == NULL) return NAS_ERR_NOMEM;
    nas_status status = NAS_OK;
    if (pair_by_name(hr, lr, s->scale, owner)) {
        status = add_paired(s, hr, lr, owner);
    } else if (hr->n == lr->n) {
        for (size_t i = 0; i < hr->n; i++)
            owner[i] = i;
        status = add_paired(s, hr, lr, owner);
    } else {
        nas_log(
            s->ctx, NAS_LOG_WARN,
            "data lr_unused folder=%s hr=%zu lr=%zu: counts differ and names do not pair; LR is "
            "made by bicubic",
            folder, hr->n, lr->n);
        status = add_largest_cuts(s, hr);
    }
    nas_free(owner);
    return status;
}

/* ---- the walk ------------------------------------------------------------------------------------------------ */

/* list_part - the files of folder/name; subfolders in there are no part of the set. */
static nas_status list_part(nas_ctx *ctx, const char *folder, const char *name, names *files) {
    nas_buf path = {0};
    names folders = {0};
    nas_buf_printf(&path, "%s/%s", folder, name);
    nas_status status = nas_buf_status(ctx, &path);
    if (status == NAS_OK) status = list_folder(ctx, path.data, files, &folders);
    names_deinit(&folders);
    nas_buf_deinit(&path);
    return status;
}

static bool holds(const names *folders, const char *name) {
    for (size_t i = 0; i < folders->n; i++) {
        if (strcmp(base_name(folders->items[i]), name) == 0) return true;
    }
    return false;
}

static nas_status scan_pairs(scan *s, const char *folder, const names *folders) {
    char lr_name[32];
    (void)snprintf(lr_name, sizeof lr_name, "LR_x%" PRId32, s->scale);
    names hr = {0}, lr = {0};
    nas_status status = list_part(s->ctx, folder, "HR", &hr);
    if (status == NAS_OK && holds(folders, lr_name)) {
        status = list_part(s->ctx, folder, lr_name, &lr);
    }
    if (status == NAS_OK) status = add_hr_and_lr(s, folder, &hr, &lr);
    names_deinit(&lr);
    names_deinit(&hr);
    return status;
}

/* enter - false when the folder was visited before. */
static nas_status enter(scan *s, const char *path, bool *fresh) {
    struct stat info;
    *fresh = stat(path, &info) == 0;
    if (!*fresh) return NAS_OK;
    for (size_t i = 0; i < s->n_seen; i++) {
        if (s->seen[i].device == info.st_dev && s->seen[i].inode == info.st_ino) *fresh = false;
    }
    if (!*fresh) return NAS_OK;
    const nas_status status =
        nas_grow(s->ctx, &s->seen, &s->cap_seen, s->n_seen + 1, sizeof *s->seen);
    if (status != NAS_OK) return status;
    s->seen[s->n_seen++] = (visited){.device = info.st_dev, .inode = info.st_ino};
    return NAS_OK;
}

static nas_status scan_folder(scan *s, const char *path, int depth);

/* scan_below - the subfolders; one that cannot be read is named, counted and passed over. */
static nas_status scan_below(scan *s, const names *folders, bool has_hr, int depth) {
    for (size_t i = 0; i < folders->n; i++) {
        const char *path = folders->items[i], *name = base_name(path);
        if (has_hr && (strcmp(name, "HR") == 0 || strncmp(name, "LR_x", 4) == 0)) continue;
        bool fresh = false;
        nas_status status = enter(s, path, &fresh);
        if (status == NAS_OK && fresh && depth < DEPTH_MAX)
            status = scan_folder(s, path, depth + 1);
        if (status == NAS_ERR_IO || status == NAS_ERR_NOTFOUND) {
            nas_log(s->ctx, NAS_LOG_WARN, "data skipped %s", nas_ctx_message(s->ctx));
            s->out->skipped++;
            status = NAS_OK;
        }
        if (status != NAS_OK) return status;
    }
    return NAS_OK;
}

static nas_status scan_folder(scan *s, const char *path, int depth) {
    nas_status status = nas_check_cancel(s->ctx);
    if (status != NAS_OK) return status;
    names files = {0}, folders = {0};
    status = list_folder(s->ctx, path, &files, &folders);
    const bool has_hr = holds(&folders, "HR");
    if (status == NAS_OK && has_hr) status = scan_pairs(s, path, &folders);
    for (size_t i = 0; i < files.n && status == NAS_OK; i++) {
        status = add_source(s, files.items[i], NULL);
    }
    if (status == NAS_OK) status = scan_below(s, &folders, has_hr, depth);
    names_deinit(&folders);
    names_deinit(&files);
    return status;
}

static int by_first_hr(const void *a, const void *b) {
    return strcmp(((const nas__sr_source *)a)->hr[0], ((const nas__sr_source *)b)->hr[0]);
}

nas_status nas__sr_scan(nas_ctx *ctx, const char *folders, int32_t scale, nas__sr_sources *out) {
    scan s = {.ctx = ctx, .scale = scale, .out = out};
    const size_t before = out->n;
    names roots = {0};
    nas_status status = NAS_OK;
    for (const char *at = folders; *at != '\0' && status == NAS_OK;) {
        size_t len = strcspn(at, ":");
        const char *next = at + len + (at[len] == ':' ? 1 : 0);
        while (len > 1 && at[len - 1] == '/')
            len--;
        if (len > 0) status = names_add(ctx, &roots, at, len);
        at = next;
    }
    for (size_t i = 0; i < roots.n && status == NAS_OK; i++) {
        bool fresh = false;
        status = enter(&s, roots.items[i], &fresh);
        const bool repeated = !fresh && nas_file_exists(roots.items[i]);
        if (status == NAS_OK && !repeated) status = scan_folder(&s, roots.items[i], 0);
    }
    if (status == NAS_OK && out->n > before + 1) {
        qsort(out->items + before, out->n - before, sizeof *out->items, by_first_hr);
    }
    names_deinit(&roots);
    nas_free(s.seen);
    return status;
}
