// SPDX-License-Identifier: MIT
// What a guest prints, made harmless for the console.
#include "vmm/monitor/line_builder.hpp"
#include "vmm/monitor/text_filter.hpp"

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace {

void check_line(std::string_view line) {
    if (line.size() > hv::LineBuilder::kSize)
        __builtin_trap();
    for (std::size_t i = 0; i < line.size(); ++i) {
        const auto byte = static_cast<unsigned char>(line[i]);
        const bool control = (byte < 0x20 && byte != '\t') || byte == 0x7f;
        const bool c1 =
            byte == 0xc2 && (i + 1 == line.size() || static_cast<unsigned char>(line[i + 1]) < 0xa0);
        if (control || c1)
            __builtin_trap();
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text{reinterpret_cast<const char*>(data), size};
    hv::LineBuilder builder;
    builder.add(text, check_line);
    builder.finish(check_line);
    hv::TextFilter filter{hv::TextFilter::Escapes::keep_looks};
    for (const char c : text) {
        if (filter.feed(c).size() > hv::TextFilter::kMaxPiece)
            __builtin_trap();
    }
    return 0;
}
