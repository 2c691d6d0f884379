/* sp and lcg in float, judged without a JSON library:
 *
 *     cc -O2 -std=c99 -o mine mine.c -lm
 *     efcp-ref gen sp --cases 100 | ./mine | efcp-ref verify sp --cases 100
 *
 * A case is words between blanks: case sp SEED INDEX DTYPE, then NAME TYPE AXES SIZE... VALUE... , then end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char name[32];
    int axes, size[8], count;
    double *value;
} Entry;

static Entry entry[16];
static int entries;

static int word(char *to) { return scanf("%63s", to) == 1; }

static int integer(void) {
    int n = 0;
    if (scanf("%d", &n) != 1) exit(1);
    return n;
}

static void read_entry(const char *name) {
    char text[64];
    Entry *e = &entry[entries++];
    snprintf(e->name, sizeof e->name, "%.31s", name);
    word(text); /* the type: all values are kept as double, which holds each of them */
    e->axes = integer();
    e->count = 1;
    for (int i = 0; i < e->axes; i++) e->count *= e->size[i] = integer();
    e->value = malloc(sizeof(double) * (size_t)(e->count + 1));
    for (int i = 0; i < e->count && word(text); i++) e->value[i] = strtod(text, NULL); /* reads 0x1.8p+1 */
}

static const Entry *get(const char *name) {
    for (int i = 0; i < entries; i++)
        if (!strcmp(entry[i].name, name)) return &entry[i];
    fprintf(stderr, "no argument %s\n", name);
    exit(1);
}

static void write_floats(const char *name, const float *value, int n) {
    printf("%s float32 1 %d", name, n);
    for (int i = 0; i < n; i++) printf(" %a", (double)value[i]);
    printf("\n");
}

/* omega_r = v_r . g */
static void sp(void) {
    const Entry *indices = get("indices"), *values = get("values"), *g = get("g");
    int m = values->size[0], k = values->size[1];
    float *omega = calloc((size_t)m + 1, sizeof *omega);
    for (int r = 0; r < m; r++)
        for (int j = r * k; j < (r + 1) * k; j++)
            omega[r] += (float)values->value[j] * (float)g->value[(int)indices->value[j]];
    write_floats("omega", omega, m);
    free(omega);
}

/* omega = sum_r c_r v_r */
static void lcg(void) {
    const Entry *indices = get("indices"), *values = get("values"), *c = get("c");
    int m = values->size[0], k = values->size[1], d = (int)get("d")->value[0];
    float *omega = calloc((size_t)d + 1, sizeof *omega);
    for (int r = 0; r < m; r++)
        for (int j = r * k; j < (r + 1) * k; j++)
            omega[(int)indices->value[j]] += (float)c->value[r] * (float)values->value[j];
    write_floats("omega", omega, d);
    free(omega);
}

int main(void) {
    char text[64], operation[64], seed[64], index[64], dtype[64];
    while (word(text)) { /* "case" */
        if (!word(operation) || !word(seed) || !word(index) || !word(dtype)) return 1;
        while (word(text) && strcmp(text, "end")) read_entry(text);
        printf("case %s %s %s %s\n", operation, seed, index, dtype);
        if (!strcmp(operation, "sp")) sp();
        if (!strcmp(operation, "lcg")) lcg();
        printf("end\n");
        while (entries) free(entry[--entries].value);
    }
    return 0;
}
