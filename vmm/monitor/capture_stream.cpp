// SPDX-License-Identifier: MIT
#include "vmm/monitor/capture_stream.hpp"

#include "vmm/base/text.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace hv {
namespace {

constexpr std::string_view kMark = "pcap ";
constexpr std::size_t kLineBytes = 96;
constexpr std::size_t kLineSize = kMark.size() + kLineBytes / 3 * 4 + 1;
/// What one call shows at most.
constexpr std::size_t kLines = 15;

using Text = std::array<char, kLines * kLineSize>;

std::size_t encode(std::span<const std::byte> bytes, char* out) {
    constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char* const start = out;
    for (; !bytes.empty(); bytes = bytes.subspan(std::min<std::size_t>(3, bytes.size()))) {
        const auto at = [&](std::size_t i) {
            return i < bytes.size() ? std::to_integer<std::uint32_t>(bytes[i]) : 0;
        };
        const std::uint32_t group = at(0) << 16 | at(1) << 8 | at(2);
        *out++ = kDigits[group >> 18];
        *out++ = kDigits[group >> 12 & 63];
        *out++ = bytes.size() > 1 ? kDigits[group >> 6 & 63] : '=';
        *out++ = bytes.size() > 2 ? kDigits[group & 63] : '=';
    }
    return static_cast<std::size_t>(out - start);
}

}  // namespace

Expected<void> CaptureStream::start(net::Switch& the_switch, const net::Capture::Choice& choice) {
    if (running_)
        return Unexpected{Error::busy};
    running_ = true;
    switch_ = &the_switch;
    capture_.start(choice);
    switch_->set_tap(&capture_);
    return {};
}

Expected<void> CaptureStream::stop() {
    if (!running_)
        return Unexpected{Error::not_found};
    switch_->set_tap(nullptr);
    capture_.stop();
    capture_.set_ready(true);
    return {};
}

void CaptureStream::service() {
    capture_.set_ready(false);
    if (!running_)
        return;
    show_some();
    if (capture_.ended() && out_.room() >= sizeof(Text))
        finish();
}

void CaptureStream::show_some() {
    Text text;
    if (out_.room() < text.size())
        return;
    std::size_t size = 0;
    for (std::size_t line = 0; line < kLines; ++line) {
        std::array<std::byte, kLineBytes> bytes;
        const std::size_t count = capture_.read(bytes);
        if (count == 0)
            break;
        size += kMark.copy(&text[size], kMark.size());
        size += encode(std::span{bytes}.first(count), &text[size]);
        text[size++] = '\n';
    }
    if (size != 0) {
        out_.show({text.data(), size});
        resting_ = false;
        capture_.set_ready(true);  // there may be more
    } else if (!resting_) {
        out_.rest();
        resting_ = true;
    }
}

void CaptureStream::finish() {
    switch_->set_tap(nullptr);
    capture_.stop();
    running_ = false;
    TextBuffer<96> line;
    line.append("The capture has %llu frames; %llu more were lost.\n",
                static_cast<unsigned long long>(capture_.frames()),
                static_cast<unsigned long long>(capture_.lost()));
    out_.show(line.view());
    out_.rest();
    resting_ = true;
}

}  // namespace hv
