/* test_open.c - creating, locking, migrating and refusing files. */
#include "tests/db/fixture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

SUITE(db_open);

Test(db_open, a_new_file_has_the_newest_schema_in_wal_mode) {
    nas_db *db = open_db();
    cr_assert(eq(long, strtol(raw_text(db_path, "PRAGMA user_version"), NULL, 10),
                 (long)nas_db_schema_version()));
    cr_assert(eq(str, (char *)raw_text(db_path, "PRAGMA journal_mode"), "wal"));
    cr_assert(
        eq(str,
           (char *)raw_text(db_path, "SELECT count(*) FROM pragma_table_list"
                                     " WHERE schema = 'main' AND type = 'table' AND strict = 0"
                                     " AND name NOT LIKE 'sqlite_%'"),
           "0"));
    close_db(db);
    assert_intact(db_path);
}

Test(db_open, closing_leaves_one_complete_file) {
    nas_db *db = open_db();
    (void)add_study(db, "a");
    close_db(db);
    char wal[160];
    (void)snprintf(wal, sizeof wal, "%s-wal", db_path);
    cr_assert(not(nas_file_exists(wal)));
    db = open_db();
    nas_db_study study = {0};
    OK(nas_db_study_get(ctx, db, "a", &study));
    nas_db_study_deinit(&study);
    close_db(db);
    OK(nas_db_close(ctx, NULL));
}

Test(db_open, a_second_writer_is_told_who_has_the_file) {
    nas_db *db = open_db(), *second = NULL;
    FAILS(NAS_ERR_DB, nas_db_open(ctx, db_path, &second));
    char expected[64];
    (void)snprintf(expected, sizeof expected, "locked by process %ld (", (long)getpid());
    cr_assert(says(expected));
    cr_assert(says("): wait for it or stop it"));
    cr_assert(eq(ptr, strstr(nas_ctx_message(ctx), "command unknown"), NULL)); /* /proc has it */
    char alias[128];
    (void)snprintf(alias, sizeof alias, "%s/alias.db", folder);
    cr_assert(eq(int, symlink(db_path, alias), 0));
    FAILS(NAS_ERR_DB, nas_db_open(ctx, alias, &second)); /* the same file by another name */
    close_db(db);
    OK(nas_db_open(ctx, alias, &second));
    close_db(second);
}

Test(db_open, a_killed_writer_leaves_no_lock) {
    int pipes[2];
    cr_assert(eq(int, pipe(pipes), 0));
    const pid_t pid = fork();
    if (pid == 0) {
        (void)alarm(30); /* ends it even when the test failed before it could */
        nas_db *db = NULL;
        const char ready = nas_db_open(ctx, db_path, &db) == NAS_OK ? 'y' : 'n';
        if (write(pipes[1], &ready, 1) != 1) _exit(1);
        for (;;)
            (void)pause();
    }
    char ready = 0;
    cr_assert(eq(int, (int)read(pipes[0], &ready, 1), 1));
    cr_assert(eq(chr, ready, 'y'));
    nas_db *db = NULL;
    FAILS(NAS_ERR_DB, nas_db_open(ctx, db_path, &db));
    char expected[64];
    (void)snprintf(expected, sizeof expected, "locked by process %ld (", (long)pid);
    cr_assert(says(expected));
    cr_assert(eq(int, kill(pid, SIGKILL), 0));
    cr_assert(eq(int, (int)waitpid(pid, NULL, 0), (int)pid));
    close_db(open_db());
    (void)close(pipes[0]);
    (void)close(pipes[1]);
}

Test(db_open, a_child_program_does_not_inherit_the_lock) {
    nas_db *db = open_db();
    int hold[2];
    cr_assert(eq(int, pipe(hold), 0));
    const pid_t pid = fork();
    if (pid == 0) {
        (void)dup2(hold[0], 0);
        (void)close(hold[1]);
        execlp("cat", "cat", (char *)NULL); /* runs until the pipe closes */
        _exit(127);
    }
    (void)close(hold[0]);
    close_db(db);
    close_db(open_db()); /* waits at most half a second for the exec */
    (void)close(hold[1]);
    cr_assert(eq(int, (int)waitpid(pid, NULL, 0), (int)pid));
}

/* ---- migrations --------------------------------------------------------------------------------------------------- */

static const char *const step_1[] = {
    "CREATE TABLE a (id INTEGER PRIMARY KEY, ms REAL NOT NULL) STRICT",
    "CREATE TABLE b (a_id INTEGER NOT NULL REFERENCES a (id)) STRICT",
    "INSERT INTO a VALUES (1, 2.5)", "INSERT INTO b VALUES (1)", NULL};
/* Rebuilds a table that another refers to: ms becomes us. */
static const char *const step_2[] = {
    "CREATE TABLE a_new (id INTEGER PRIMARY KEY, us REAL NOT NULL) STRICT",
    "INSERT INTO a_new SELECT id, ms * 1000 FROM a", "DROP TABLE a",
    "ALTER TABLE a_new RENAME TO a", NULL};
static const char *const step_3_bad_sql[] = {"CREATE TABLE c (x INTEGER) STRICT",
                                             "INSERT INTO missing VALUES (1)", NULL};
static const char *const step_3_dangling[] = {"DELETE FROM a", NULL};

Test(db_open, an_older_file_is_brought_up_to_date_with_its_rows) {
    const nas_db_migration list[] = {{"one", step_1}, {"two", step_2}};
    nas_db *db = NULL;
    OK(nas_db_open_schema(ctx, db_path, list, 1, &db));
    close_db(db);
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT ms FROM a"), "2.5"));
    OK(nas_db_open_schema(ctx, db_path, list, 2, &db));
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT us FROM a JOIN b ON a_id = id"), "2500.0"));
    cr_assert(eq(str, (char *)raw_text(db_path, "PRAGMA user_version"), "2"));
    close_db(db);
}

Test(db_open, a_failed_migration_leaves_the_file_as_it_was) {
    static const char *const *const bad_steps[] = {step_3_bad_sql, step_3_dangling};
    static const char *const messages[] = {"schema version 3 (three)", "refer to missing rows"};
    for (size_t i = 0; i < 2; i++) {
        const nas_db_migration list[] = {{"one", step_1}, {"two", step_2}, {"three", bad_steps[i]}};
        nas_db *db = NULL;
        OK(nas_db_open_schema(ctx, db_path, list, 1, &db));
        close_db(db);
        FAILS(NAS_ERR_DB, nas_db_open_schema(ctx, db_path, list, 3, &db));
        cr_assert(says(messages[i]));
        cr_assert(eq(str, (char *)raw_text(db_path, "PRAGMA user_version"), "1"));
        cr_assert(eq(str, (char *)raw_text(db_path, "SELECT ms FROM a"), "2.5"));
    }
}

Test(db_open, a_newer_schema_is_refused_and_not_touched) {
    close_db(open_db());
    cr_assert(eq(int, raw_sql(db_path, "PRAGMA user_version = 99"), SQLITE_OK));
    nas_db *db = NULL;
    FAILS(NAS_ERR_DB, nas_db_open(ctx, db_path, &db));
    cr_assert(says("schema version 99"));
    cr_assert(says("newer program"));
    FAILS(NAS_ERR_DB, nas_db_open_readonly(ctx, db_path, &db));
    cr_assert(says("schema version 99"));
    cr_assert(eq(str, (char *)raw_text(db_path, "PRAGMA user_version"), "99"));
}

/* ---- files that are not ours -------------------------------------------------------------------------------------- */

static void write_file(const char *text, size_t len) {
    OK(nas_file_write(ctx, db_path, text, len, 0644));
}

Test(db_open, other_files_are_refused_with_the_reason) {
    nas_db *db = NULL;
    char noise[5000];
    memset(noise, 'x', sizeof noise);
    const size_t sizes[] = {10, 600, sizeof noise};
    for (size_t i = 0; i < 3; i++) {
        write_file(noise, sizes[i]);
        FAILS(NAS_ERR_DB, nas_db_open(ctx, db_path, &db));
        cr_assert(says("not a study database"), "%zu bytes", sizes[i]);
        FAILS(NAS_ERR_DB, nas_db_open_readonly(ctx, db_path, &db));
        cr_assert(says("not a study database"), "%zu bytes", sizes[i]);
    }
    OK(nas_remove_tree(ctx, db_path));
    cr_assert(eq(int, raw_sql(db_path, "CREATE TABLE t (x)"), SQLITE_OK));
    FAILS(NAS_ERR_DB, nas_db_open(ctx, db_path, &db));
    cr_assert(says("another program"));
    cr_assert(eq(str, (char *)raw_text(db_path, "PRAGMA journal_mode"),
                 "delete")); /* not even switched to WAL */
}

Test(db_open, folders_and_missing_folders_are_named) {
    nas_db *db = NULL;
    FAILS(NAS_ERR_IO, nas_db_open(ctx, folder, &db));
    cr_assert(says("not a regular file"));
    FAILS(NAS_ERR_IO, nas_db_open(ctx, "/tmp/nas-no-such-folder/a/study.db", &db));
    cr_assert(says("make the folder first"));
    FAILS(NAS_ERR_NOTFOUND, nas_db_open_readonly(ctx, "/tmp/nas-no-such-folder/study.db", &db));
    FAILS(NAS_ERR_INVALID, nas_db_open(ctx, "", &db));
}

Test(db_open, a_damaged_file_is_named_as_damaged) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a");
    for (int i = 0; i < 200; i++)
        OK(nas_db_event(ctx, db, study, "note", "a line that fills some pages"));
    close_db(db);
    FILE *file = fopen(db_path, "r+b");
    cr_assert(ne(ptr, file, NULL));
    char noise[4096];
    memset(noise, 0x5a, sizeof noise);
    cr_assert(
        eq(int, fseek(file, -(long)sizeof noise * 2, SEEK_END), 0)); /* inside the events' pages */
    cr_assert(eq(sz, fwrite(noise, 1, sizeof noise, file), sizeof noise));
    cr_assert(eq(int, fclose(file), 0));
    FAILS(NAS_ERR_DB, nas_db_open(ctx, db_path, &db));
    cr_assert(says("is damaged"));
    cr_assert(says(".recover"));
}

Test(db_open, a_cut_file_is_named_as_damaged) {
    nas_db *db = open_db();
    (void)add_study(db, "a");
    close_db(db);
    cr_assert(eq(int, truncate(db_path, 4096 * 3 + 17), 0));
    FAILS(NAS_ERR_DB, nas_db_open(ctx, db_path, &db));
    cr_assert(says("is damaged"));
}

/* ---- readers ------------------------------------------------------------------------------------------------------ */

static nas_status count_rows(nas_ctx *c, void *arg, int32_t n, const char *const *names,
                             const char *const *values, const bool *is_number) {
    (void)c, (void)n, (void)names, (void)values, (void)is_number;
    ++*(int *)arg;
    return NAS_OK;
}

Test(db_open, a_reader_sees_commits_of_a_living_writer_and_cannot_write) {
    nas_db *writer = open_db(), *reader = NULL;
    OK(nas_db_open_readonly(ctx, db_path, &reader));
    int n = 0;
    OK(nas_db_query(ctx, reader, "SELECT * FROM v_study", NULL, 0, count_rows, &n));
    cr_assert(eq(int, n, 0));
    const int64_t study = add_study(writer, "a");
    OK(nas_db_begin(ctx, writer));
    (void)add_trial(writer, study, 0, "seed");
    OK(nas_db_query(ctx, reader, "SELECT * FROM v_study", NULL, 0, count_rows, &n));
    OK(nas_db_query(ctx, reader, "SELECT * FROM v_trial", NULL, 0, count_rows, &n));
    cr_assert(eq(int, n, 1)); /* the study; the trial is not committed yet */
    OK(nas_db_commit(ctx, writer));
    OK(nas_db_query(ctx, reader, "SELECT * FROM v_trial", NULL, 0, count_rows, &n));
    cr_assert(eq(int, n, 2));
    FAILS(NAS_ERR_IO, nas_db_event(ctx, reader, study, "note", "x"));
    close_db(writer); /* a reader is no reason to fail */
    close_db(reader);
    assert_intact(db_path);
}

/* Runs as a user without rights in the folder, where the test runs as root; else the folder's mode is enough. */
static void drop_rights(void) {
    cr_assert(eq(int, chmod(folder, 0555), 0));
    if (geteuid() == 0) cr_assert(eq(int, seteuid(65534), 0));
}

static void regain_rights(void) {
    if (getuid() == 0) cr_assert(eq(int, seteuid(0), 0));
    cr_assert(eq(int, chmod(folder, 0755), 0));
}

Test(db_open, a_closed_file_is_readable_in_a_read_only_folder) {
    nas_db *db = open_db();
    (void)add_study(db, "a");
    close_db(db);
    drop_rights();
    OK(nas_db_open_readonly(ctx, db_path, &db));
    int n = 0;
    OK(nas_db_query(ctx, db, "SELECT * FROM v_study", NULL, 0, count_rows, &n));
    cr_assert(eq(int, n, 1));
    close_db(db);
    FAILS(NAS_ERR_IO, nas_db_open(ctx, db_path, &db));
    regain_rights();
}

Test(db_open, commits_in_a_left_log_of_a_read_only_folder_are_never_skipped) {
    nas_db *db = open_db();
    (void)add_study(db, "a");
    char copy[128], wal[160], copy_wal[160];
    (void)snprintf(copy, sizeof copy, "%s/copy.db",
                   folder); /* a file and its log, as a kill leaves them; no -shm */
    (void)snprintf(wal, sizeof wal, "%s-wal", db_path);
    (void)snprintf(copy_wal, sizeof copy_wal, "%s-wal", copy);
    nas_buf bytes = {0};
    OK(nas_file_read(ctx, wal, 1 << 24, &bytes));
    OK(nas_file_write(ctx, copy_wal, bytes.data, bytes.len, 0644));
    nas_buf_deinit(&bytes);
    OK(nas_file_read(ctx, db_path, 1 << 24, &bytes));
    OK(nas_file_write(ctx, copy, bytes.data, bytes.len, 0644));
    nas_buf_deinit(&bytes);
    drop_rights();
    nas_db *reader = NULL;
    FAILS(NAS_ERR_IO, nas_db_open_readonly(ctx, copy, &reader));
    cr_assert(says("copy both files to a writable folder"));
    regain_rights();
    OK(nas_db_open_readonly(ctx, copy, &reader)); /* with rights the log is read */
    int n = 0;
    OK(nas_db_query(ctx, reader, "SELECT * FROM v_study", NULL, 0, count_rows, &n));
    cr_assert(eq(int, n, 1));
    close_db(reader);
    close_db(db);
}

Test(db_open, a_write_protected_file_names_what_to_check) {
    close_db(open_db());
    cr_assert(eq(int, chmod(db_path, 0444), 0));
    char lock[160];
    (void)snprintf(lock, sizeof lock, "%s.lock", db_path);
    cr_assert(eq(int, chmod(lock, 0666), 0));
    cr_assert(eq(int, chmod(folder, 0777), 0));
    if (geteuid() == 0) cr_assert(eq(int, seteuid(65534), 0));
    nas_db *db = NULL;
    const nas_status status = nas_db_open(ctx, db_path, &db);
    if (getuid() == 0) cr_assert(eq(int, seteuid(0), 0));
    FAILS(NAS_ERR_IO, status);
    cr_assert(says("may be written"));
}

Test(db_open, transactions_do_not_nest_and_closing_undoes_an_open_one) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a");
    FAILS(NAS_ERR_DB, nas_db_commit(ctx, db));
    nas_db_rollback(db);
    OK(nas_db_begin(ctx, db));
    FAILS(NAS_ERR_DB, nas_db_begin(ctx, db));
    OK(nas_db_event(ctx, db, study, "note", "lost"));
    nas_db_rollback(db);
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT count(*) FROM events"), "0"));
    OK(nas_db_begin(ctx, db));
    OK(nas_db_event(ctx, db, study, "note", "lost"));
    FAILS(NAS_ERR_DB, nas_db_close(ctx, db));
    cr_assert(says("inside a transaction"));
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT count(*) FROM events"), "0"));
}
