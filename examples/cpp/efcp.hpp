// JSON lines for efcp-ref, header only, C++17: as much JSON as the protocol needs, base64, and the loop of messages.
#pragma once
#include <cstdint>
#include <cstring>
#include <functional>
#include <iostream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace efcp {

struct Value {  // one JSON value
    enum Kind { null, boolean, number, text, list, object } kind = null;
    double n = 0;
    std::string s;
    std::vector<Value> items;
    std::map<std::string, Value> fields;
    const Value &operator[](const std::string &name) const { return fields.at(name); }
};

class Parser {
  public:
    explicit Parser(const std::string &line) : p(line.c_str()) {}
    Value value() {
        Value v;
        switch (skip()) {
        case '{':
            v.kind = Value::object;
            for (p++; skip() != '}'; comma('}')) {
                std::string name = string();
                expect(':');
                v.fields[name] = value();
            }
            p++;
            return v;
        case '[':
            v.kind = Value::list;
            for (p++; skip() != ']'; comma(']')) v.items.push_back(value());
            p++;
            return v;
        case '"': v.kind = Value::text; v.s = string(); return v;
        case 't': v.kind = Value::boolean; v.n = 1; p += 4; return v;
        case 'f': v.kind = Value::boolean; p += 5; return v;
        case 'n': p += 4; return v;
        default: {
            char *end;
            v.kind = Value::number;
            v.n = std::strtod(p, &end);
            if (end == p) throw std::runtime_error("bad JSON");
            p = end;
            return v;
        }
        }
    }

  private:
    const char *p;
    char skip() {
        while (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n') p++;
        return *p;
    }
    void expect(char c) {
        if (skip() != c) throw std::runtime_error(std::string("expected ") + c);
        p++;
    }
    void comma(char end) {
        if (skip() != end) expect(',');
    }
    std::string string() {  // the oracle sends no escapes but \" \\ and those of paths
        std::string out;
        expect('"');
        while (*p && *p != '"') {
            if (*p == '\\') p++;
            out += *p++;
        }
        expect('"');
        return out;
    }
};

inline std::string decode64(const std::string &in) {
    static const std::string table = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    uint32_t bits = 0;
    int have = 0;
    for (char c : in) {
        auto at = table.find(c);
        if (at == std::string::npos) break;
        bits = bits << 6 | uint32_t(at);
        if ((have += 6) >= 8) out += char(bits >> (have -= 8) & 255);
    }
    return out;
}

inline std::string encode64(const void *data, size_t size) {
    static const char table[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const auto *b = static_cast<const unsigned char *>(data);
    std::string out;
    for (size_t i = 0; i < size; i += 3) {
        uint32_t bits = b[i] << 16 | (i + 1 < size ? b[i + 1] << 8 : 0) | (i + 2 < size ? b[i + 2] : 0);
        for (int j = 0; j < 4; j++) out += i + j > size ? '=' : table[bits >> (18 - 6 * j) & 63];
    }
    return out;
}

struct Array {  // floats and integers alike as double, which holds each value of a case
    std::vector<size_t> shape;
    std::vector<double> data;
    explicit Array(std::vector<size_t> sides = {}) : shape(std::move(sides)) {
        size_t n = 1;
        for (size_t side : shape) n *= side;
        data.resize(n);
    }
    double &operator[](size_t i) { return data[i]; }
    double operator[](size_t i) const { return data[i]; }
    const double *row(size_t r) const { return data.data() + r * shape[1]; }
};

template <class T> void fill(Array &a, const std::string &bytes) {
    for (size_t i = 0; i < a.data.size(); i++) {
        T x;
        std::memcpy(&x, bytes.data() + i * sizeof(T), sizeof(T));
        a.data[i] = double(x);
    }
}

struct Arguments {
    const Value &given;
    double number(const std::string &name) const { return given[name].n; }
    Array array(const std::string &name) const {
        const Value &v = given[name];
        std::vector<size_t> sides;
        for (const Value &side : v["shape"].items) sides.push_back(size_t(side.n));
        Array a(sides);
        std::string bytes = decode64(v["base64"].s), dtype = v["dtype"].s;
        if (dtype == "float64") fill<double>(a, bytes);
        else if (dtype == "float32") fill<float>(a, bytes);
        else if (dtype == "int32") fill<int32_t>(a, bytes);
        else throw std::runtime_error("dtype " + dtype);
        return a;
    }
};

class Results {
  public:
    void add(const std::string &name, const Array &a) {  // as float64
        put(name, "float64", a.shape, encode64(a.data.data(), 8 * a.data.size()));
    }
    void add_indices(const std::string &name, const std::vector<int32_t> &a) {
        put(name, "int32", {a.size()}, encode64(a.data(), 4 * a.size()));
    }
    std::string text() const { return "{" + out + "}"; }

  private:
    std::string out;
    void put(const std::string &name, const char *dtype, const std::vector<size_t> &shape, const std::string &data) {
        std::string sides;
        for (size_t side : shape) sides += (sides.empty() ? "" : ",") + std::to_string(side);
        out += (out.empty() ? "\"" : ",\"") + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + sides +
               "],\"base64\":\"" + data + "\"}";
    }
};

using Operation = std::function<void(const Arguments &, Results &)>;

inline int serve(const std::map<std::string, Operation> &operations) {  // until stop, or the end of the input
    std::string line, names;
    for (const auto &one : operations) names += (names.empty() ? "\"" : ",\"") + one.first + "\"";
    while (std::getline(std::cin, line)) {
        Value message = Parser(line).value();
        const std::string type = message["type"].s;
        if (type == "stop") break;
        if (type == "start") {
            std::cout << "{\"type\":\"ready\",\"protocol\":1,\"capabilities\":[\"base64\"],\"operations\":[" << names
                      << "]}" << std::endl;
            continue;
        }
        std::ostringstream id;
        id << int64_t(message["id"].n);
        try {
            Results results;
            operations.at(message["operation"].s)({message["arguments"]}, results);
            std::cout << "{\"type\":\"result\",\"id\":" << id.str() << ",\"results\":" << results.text() << "}" << std::endl;
        } catch (const std::exception &why) {
            std::cout << "{\"type\":\"error\",\"id\":" << id.str() << ",\"reason\":\"" << why.what() << "\"}" << std::endl;
        }
    }
    return 0;
}

}  // namespace efcp
