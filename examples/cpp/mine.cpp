// Four operations in C++ over JSON lines:
//
//     c++ -O2 -std=c++17 -o mine mine.cpp
//     efcp-ref check --command ./mine
#include "efcp.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

using efcp::Arguments, efcp::Array, efcp::Results;

void top_k(const Arguments &given, Results &results) {
    Array a = given.array("a");
    size_t k = size_t(given.number("k"));
    std::vector<int32_t> order(a.data.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int i, int j) { return std::abs(a[i]) > std::abs(a[j]); });
    order.resize(k);
    Array values({k});
    for (size_t j = 0; j < k; j++) values[j] = a[order[j]];
    results.add_indices("indices", order);
    results.add("values", values);
}

void sp(const Arguments &given, Results &results) {
    Array indices = given.array("indices"), values = given.array("values"), g = given.array("g");
    Array omega({values.shape[0]});
    for (size_t r = 0; r < values.shape[0]; r++)
        for (size_t j = 0; j < values.shape[1]; j++) omega[r] += values.row(r)[j] * g[size_t(indices.row(r)[j])];
    results.add("omega", omega);
}

void lcg(const Arguments &given, Results &results) {
    Array indices = given.array("indices"), values = given.array("values"), c = given.array("c");
    Array omega({size_t(given.number("d"))});
    for (size_t r = 0; r < values.shape[0]; r++)
        for (size_t j = 0; j < values.shape[1]; j++) omega[size_t(indices.row(r)[j])] += c[r] * values.row(r)[j];
    results.add("omega", omega);
}

// u = x / lam - c G, c = (lam m I + G G^T)^-1 G x / lam, by Cholesky's factor L.
void mfac_direction(const Arguments &given, Results &results) {
    Array G = given.array("G"), x = given.array("x");
    size_t m = G.shape[0], d = G.shape[1];
    double lam = given.number("lam");
    Array S({m, m}), h({m}), c({m}), u({d});
    auto dot = [&](const double *a, const double *b) { return std::inner_product(a, a + d, b, 0.0); };
    for (size_t i = 0; i < m; i++) {
        h[i] = dot(G.row(i), x.data.data());
        for (size_t j = 0; j < m; j++) S[i * m + j] = dot(G.row(i), G.row(j));
    }
    Array L = S;
    for (size_t j = 0; j < m; j++) {
        L[j * m + j] += lam * double(m);
        for (size_t i = j; i < m; i++) {
            for (size_t n = 0; n < j; n++) L[i * m + j] -= L[i * m + n] * L[j * m + n];
            if (i == j) L[j * m + j] = std::sqrt(L[j * m + j]);
            else L[i * m + j] /= L[j * m + j];
        }
    }
    for (size_t i = 0; i < m; i++) {
        c[i] = h[i];
        for (size_t n = 0; n < i; n++) c[i] -= L[i * m + n] * c[n];
        c[i] /= L[i * m + i];
    }
    for (size_t i = m; i-- > 0;) {
        for (size_t n = i + 1; n < m; n++) c[i] -= L[n * m + i] * c[n];
        c[i] /= L[i * m + i];
    }
    for (double &x : c.data) x /= lam;
    for (size_t i = 0; i < d; i++) {
        u[i] = x[i] / lam;
        for (size_t r = 0; r < m; r++) u[i] -= c[r] * G.row(r)[i];
    }
    results.add("u", u);
    results.add("S", S);
    results.add("h", h);
    results.add("c", c);
}

int main() {
    return efcp::serve({{"top_k", top_k}, {"sp", sp}, {"lcg", lcg}, {"mfac_direction", mfac_direction}});
}
