// SPDX-License-Identifier: MIT
// One party on the console's line: its text, and where what is typed for it goes.
#pragma once

#include "vmm/base/guarded.hpp"
#include "vmm/base/list.hpp"
#include "vmm/monitor/line_builder.hpp"
#include "vmm/monitor/text_filter.hpp"
#include "vmm/monitor/text_ring.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace hv {

class ConsoleMux;

/// Where typed characters go. Called without a lock, on the boot CPU.
class ConsoleInput {
public:
    /// False: no room, the character is lost.
    virtual bool receive(char c) = 0;
    /// Lines of others came in between on the screen: a prompt shall be shown again.
    virtual void redraw() {}

protected:
    ~ConsoleInput() = default;
};

/// Lives as long as it is attached. What has not been shown when it goes is lost, which the console says.
class ConsoleChannel {
public:
    static constexpr std::size_t kNameSize = 32;

    /// Boot CPU. `name` outlives the channel; at most kNameSize characters are shown. `input` nullptr: typing
    /// goes nowhere. `buffer` as TextRing: it keeps what has not been shown yet, and what is shown again by a
    /// switch to this channel.
    ConsoleChannel(ConsoleMux& mux, std::string_view name, ConsoleInput* input, std::span<char> buffer);
    /// Boot CPU. Nobody writes any more.
    ~ConsoleChannel();
    ConsoleChannel(const ConsoleChannel&) = delete;
    ConsoleChannel& operator=(const ConsoleChannel&) = delete;

    /// Any CPU, with locks of ranks below console. Takes the text and does not wait for it to be shown.
    void write(std::string_view text);
    /// The same for a second stream, such as a debug port, that comes in lines: each is shown once it is
    /// complete, and never in the middle of what write() has begun.
    void write_lines(std::string_view text);
    /// Completes what stands in lines that have no end yet.
    void finish_lines();
    [[nodiscard]] std::string_view name() const { return name_; }
    /// How many characters may come until `most` wait to be shown; 0 while the channel is not shown at all.
    [[nodiscard]] std::size_t room(std::size_t most) const;
    /// What is written is shown: headless always, interactive while it has the line.
    [[nodiscard]] bool is_shown() const;

private:
    friend class ConsoleMux;
    enum class Shape : std::uint8_t {
        stream,  ///< as it was written
        lines,   ///< the ring holds whole harmless lines, each with a '\n' behind it
    };
    struct Text {
        explicit Text(std::span<char> buffer) : ring{buffer} {}
        void add_line(std::string_view line, Shape shape);

        TextRing ring;
        LineBuilder serial;                                  ///< Shape::lines: of write()
        LineBuilder lines;                                   ///< of write_lines()
        TextFilter replay{TextFilter::Escapes::keep_looks};  ///< for what is shown a second time
        std::uint64_t replay_end{0};                         ///< up to where in the ring
    };

    ConsoleChannel(ConsoleMux& mux, std::string_view name, ConsoleInput* input, std::span<char> buffer,
                   Shape shape);

    // As the public ones, but for having it shown. True: there is something new to show.
    bool add(std::string_view text);
    bool add_lines(std::string_view text);
    bool add_unfinished();
    /// Calls `function(Text&)` under the lock; true: it had something to show added.
    template <class Function>
    bool change(Function&& function);
    /// From now on the text is shown, beginning with what was said last, or not.
    void watch(bool watched);

    ConsoleMux& mux_;
    std::string_view name_;
    ConsoleInput* input_;
    const Shape shape_;
    Guarded<Text, Rank::leaf> text_;
    std::atomic<bool> waiting_{false};  ///< there is something to show; changed under text_'s lock
    // Under the multiplexer's lock:
    std::uint64_t turn_{0};  ///< when it had the line last
    ListLink link_;
};

}  // namespace hv
