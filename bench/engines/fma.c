/* How many multiply-adds a core can do: chains of them, as many as hide one's latency, in registers.

   Numbers come from the caller, since a compiler would work out a chain that it knows. */

#if defined(__AVX512F__)
enum { BYTES = 64, CHAINS = 16 };
#elif defined(__AVX__)
enum { BYTES = 32, CHAINS = 12 };
#else
enum { BYTES = 16, CHAINS = 12 };
#endif

typedef float Vec __attribute__((vector_size(BYTES)));
enum { LANES = BYTES / sizeof(float) };

/* Multiply-adds in one turn of `chains`. */
int multiply_adds(void) { return CHAINS * LANES; }

/* x = x * factor + term, `turns` times in every lane of every chain; the sum of all. */
float chains(long turns, float factor, float term) {
    Vec x[CHAINS], factors, terms;
    for (int lane = 0; lane < LANES; ++lane) {
        factors[lane] = factor;
        terms[lane] = term;
    }
    for (int chain = 0; chain < CHAINS; ++chain) x[chain] = terms * (factor + (float)chain);
    for (long turn = 0; turn < turns; ++turn)
        for (int chain = 0; chain < CHAINS; ++chain) x[chain] = x[chain] * factors + terms;
    float sum = 0;
    for (int chain = 0; chain < CHAINS; ++chain)
        for (int lane = 0; lane < LANES; ++lane) sum += x[chain][lane];
    return sum;
}
