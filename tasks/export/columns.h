/* Columns that grow value by value, in the layout that Arrow has in memory; see decoder.c. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LAYOUT 2

enum status { MORE, FULL, END, STOPPED, LOST, UNFIT, DAMAGED, NO_MEMORY };

enum form { BOOL, FIXED, DATE, TIME, TIMESTAMP, BYTES, JSONB, UUID, UUID_TEXT, DECIMAL, INTERVAL, LIST };

/* Why a value does not fit; compiled.py has the words. */
enum what { NO, INFINITE, MINUS_INFINITE, TOO_LATE, MIDNIGHT, NOT_A_NUMBER, DIMENSIONS, LOWER_BOUND, DIGITS };

enum { LIMBS = 8 };

struct column {
    int32_t form;
    int32_t width;          /* bytes of a value in `data`; 0: they differ, or there is no `data` */
    int32_t scale;          /* of a decimal */
    int32_t child;          /* place of the elements, or of the first of an interval's three parts */
    int32_t top;            /* place of the result's column that this one is, or is within */
    int32_t what;           /* of the first value that did not fit */
    uint32_t limit[LIMBS];  /* of a decimal: 10 to its precision, the lowest bits first */
    int64_t unfit;          /* how many values did not fit */
    int64_t unfit_row;
    int64_t count, nulls;
    int64_t capacity;       /* values there is room for */
    int64_t size, room;     /* bytes in `data` that are used, and that there are; of columns without a width */
    uint8_t *valid;         /* one bit a value; only filled from the first NULL on */
    uint8_t *data;
    int32_t *offsets;
};

struct block {
    int32_t columns;        /* of the result; those within others come after them in `all` */
    int32_t every;
    int32_t refuse;         /* whether a value that does not fit ends the reading; else it becomes NULL */
    int32_t error_column;
    int64_t rows, most_rows;
    int64_t wire, most_wire; /* bytes of the stream */
    int64_t first_row;      /* number of the block's first row, for messages */
    int64_t held;           /* bytes of memory */
    struct column *all;
};

struct stream {
    void *connection;
    int (*get)(void *connection, char **message, int async); /* PQgetCopyData */
    int (*consume)(void *connection);                        /* PQconsumeInput */
    void (*release)(void *message);                          /* PQfreemem */
    const volatile int32_t *stop;
    int64_t received;
    int64_t pause_at;       /* bytes received after which to return for a moment */
    int64_t waited_at;      /* bytes received when it last waited for the server */
    int32_t socket;
    int32_t begun;
};

/* Memory ------------------------------------------------------------------------------------------------------- */

/* The memory with `after` bytes in place of `before`; NULL if there is not so much, and it is as it was. */
static void *resized(struct block *block, void *memory, int64_t before, int64_t after)
{
    void *grown = realloc(memory, (size_t)after);
    if (grown != NULL)
        block->held += after - before;
    return grown;
}

static int64_t fixed_bytes(const struct column *column, int64_t values)
{
    return column->form == BOOL ? values / 8 : values * column->width;
}

/* Room for `after` values, a multiple of eight. */
static int grow(struct block *block, struct column *column, int64_t after)
{
    int64_t before = column->capacity;
    void *grown;
    if ((grown = resized(block, column->valid, before / 8, after / 8)) == NULL)
        return NO_MEMORY;
    column->valid = grown;
    if (column->form == BOOL || column->width) {
        grown = resized(block, column->data, fixed_bytes(column, before), fixed_bytes(column, after));
        if (grown == NULL)
            return NO_MEMORY;
        column->data = grown;
    } else if (column->form != INTERVAL) {
        if ((grown = resized(block, column->offsets, before ? 4 * before + 4 : 0, 4 * after + 4)) == NULL)
            return NO_MEMORY;
        column->offsets = grown;
        column->offsets[0] = 0;
    }
    column->capacity = after;
    return MORE;
}

/* Room for one more value; for each value, so what it hardly ever does is elsewhere. */
static inline int reserve(struct block *block, struct column *column)
{
    if (column->count < column->capacity)
        return MORE;
    return grow(block, column, column->capacity ? 2 * column->capacity : 1024);
}

/* Room for `length` more bytes of a column without a width, 0 too; offsets are of 32 bits. */
static int reserve_bytes(struct block *block, struct column *column, int64_t length)
{
    int64_t needed = column->size + length, after = column->room ? column->room : 4096;
    if (column->room > 0 && needed <= column->room)
        return MORE;
    if (needed > INT32_MAX)
        return NO_MEMORY;
    while (after < needed)
        after *= 2;
    void *grown = resized(block, column->data, column->room, after);
    if (grown == NULL)
        return NO_MEMORY;
    column->data = grown;
    column->room = after;
    return MORE;
}

/* One value more, of which `reserve` has made sure --------------------------------------------------------------- */

static void put_bit(uint8_t *bits, int64_t place, int bit)
{
    if (place % 8 == 0)
        bits[place / 8] = 0;
    bits[place / 8] |= (uint8_t)(bit << place % 8);
}

static void count_valid(struct column *column)
{
    if (column->nulls)
        put_bit(column->valid, column->count, 1);
    column->count++;
}

static void count_null(struct column *column)
{
    int64_t place = column->count++;
    if (column->nulls++ == 0) { /* all before it were valid */
        memset(column->valid, 0xff, (size_t)(place / 8));
        column->valid[place / 8] = (uint8_t)((1 << place % 8) - 1);
    } else {
        put_bit(column->valid, place, 0);
    }
}

static int append_null(struct block *block, struct column *column)
{
    if (reserve(block, column))
        return NO_MEMORY;
    int64_t place = column->count;
    if (column->form == BOOL) {
        put_bit(column->data, place, 0);
    } else if (column->width) {
        memset(column->data + place * column->width, 0, (size_t)column->width);
    } else if (column->form == INTERVAL) {
        for (int part = 0; part < 3; part++)
            if (append_null(block, &block->all[column->child + part]))
                return NO_MEMORY;
    } else {
        column->offsets[place + 1] = column->offsets[place];
    }
    count_null(column);
    return MORE;
}
