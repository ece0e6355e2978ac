// SPDX-License-Identifier: MIT
#include "vmm/base/log.hpp"

#include "vmm/base/guarded.hpp"
#include "vmm/base/text.hpp"

#include <array>

namespace hv::log {
namespace {

constexpr std::size_t kLineSize = 240;

/// The latest lines, each cut to kLineSize.
struct Line {
    char text[kLineSize];
    std::size_t size;
};

constexpr std::size_t kLines = 256;
/// Under the lock of `ring`. Not in it: the lock's rank is no zero, and would take all of this into the
/// image.
constinit std::array<Line, kLines> lines{};

struct Ring {
    std::size_t written{0};

    void add(std::string_view text) {
        Line& line = lines[written++ % kLines];
        line.size = text.copy(line.text, kLineSize);
    }
};

constinit Guarded<Ring, Rank::leaf> ring;
constinit std::atomic<Sink*> sink{nullptr};
constinit std::atomic<Level> threshold{Level::info};

void write(Level level, Topic topic, const char* format, std::va_list arguments) {
    if (level > threshold.load(std::memory_order_relaxed))
        return;
    TextBuffer<kLineSize> line;
    line.append("%s%s: ",
                level == Level::error     ? "error: "
                : level == Level::warning ? "warning: "
                                          : "",
                to_string(topic));
    char text[kLineSize];
    const auto body = format_into(text, format, arguments);
    line.append("%.*s", static_cast<int>(body.size()), body.data());
    ring.with([&](Ring& r) { r.add(line.view()); });
    if (Sink* s = sink.load(std::memory_order_acquire))
        s->log_line(level, line.view());
}

}  // namespace

const char* to_string(Topic topic) {
    switch (topic) {
    case Topic::boot: return "boot";
    case Topic::acpi: return "acpi";
    case Topic::mm: return "mm";
    case Topic::cpu: return "cpu";
    case Topic::vmx: return "vmx";
    case Topic::svm: return "svm";
    case Topic::vm: return "vm";
    case Topic::sched: return "sched";
    case Topic::device: return "device";
    case Topic::virtio: return "virtio";
    case Topic::net: return "net";
    case Topic::block: return "block";
    case Topic::config: return "config";
    case Topic::monitor: return "monitor";
    }
    return "?";
}

void set_sink(Sink* new_sink) {
    sink.store(new_sink, std::memory_order_release);
}
void set_level(Level level) {
    threshold.store(level, std::memory_order_relaxed);
}

void for_each_kept_line(void (*line)(void* context, std::string_view text), void* context) {
    const std::size_t end = ring.with([](Ring& r) { return r.written; });
    for (std::size_t i = end > kLines ? end - kLines : 0; i < end; ++i) {
        char text[kLineSize];
        const auto size = ring.with([&](Ring&) {
            const Line& kept = lines[i % kLines];
            return std::string_view{kept.text, kept.size}.copy(text, kLineSize);
        });
        line(context, {text, size});
    }
}

#define HV_LOG_FUNCTION(level)                                                                               \
    void level(Topic topic, const char* format, ...) {                                                       \
        std::va_list arguments;                                                                              \
        va_start(arguments, format);                                                                         \
        write(Level::level, topic, format, arguments);                                                       \
        va_end(arguments);                                                                                   \
    }
HV_LOG_FUNCTION(error)
HV_LOG_FUNCTION(warning)
HV_LOG_FUNCTION(info)
HV_LOG_FUNCTION(debug)
#undef HV_LOG_FUNCTION

bool RateLimit::admit() {
    const std::uint64_t now = machine::tsc();
    std::uint64_t last = last_refill_.load(std::memory_order_relaxed);
    if (now - last >= machine::tsc_hz() &&
        last_refill_.compare_exchange_strong(last, now, std::memory_order_relaxed)) {
        const std::uint64_t seconds = (now - last) / machine::tsc_hz();
        const std::uint32_t used = used_.load(std::memory_order_relaxed);
        used_.store(used > seconds ? used - static_cast<std::uint32_t>(seconds) : 0,
                    std::memory_order_relaxed);
    }
    if (used_.load(std::memory_order_relaxed) >= burst_)
        return false;
    used_.fetch_add(1, std::memory_order_relaxed);
    return true;
}

}  // namespace hv::log
