// SPDX-License-Identifier: MIT
#include "vmm/monitor/line_editor.hpp"

#include <algorithm>
#include <utility>

namespace hv {
namespace {

constexpr char control_key(char letter) {
    return static_cast<char>(letter - 0x40);
}
constexpr char kEscape = 0x1b;
constexpr char kDelete = 0x7f;
constexpr std::string_view kEraseToEnd = "\x1b[K";

}  // namespace

void LineEditor::begin() {
    size_ = cursor_ = age_ = 0;
    state_ = State::text;
    screen_.write(prompt_);
}

LineEditor::Event LineEditor::key(char c) {
    const bool returned = std::exchange(returned_, c == '\r');
    if (state_ != State::text) {
        escaped(c);
        return Event::none;
    }
    switch (c) {
    case '\n':
        if (returned)
            return Event::none;
        [[fallthrough]];
    case '\r': return enter();
    case '\t': return Event::complete;
    case control_key('C'): screen_.write("^C\n"); return Event::cancelled;
    case kEscape: state_ = State::escape; return Event::none;
    default: break;
    }
    if (c >= ' ' && c < kDelete)
        insert({&c, 1});
    else
        control(c);
    return Event::none;
}

LineEditor::Event LineEditor::enter() {
    move_to(size_);
    screen_.write("\n");
    remember();
    return Event::line;
}

void LineEditor::control(char c) {
    switch (c) {
    case '\b':
    case kDelete:
        if (cursor_ > 0)
            erase(cursor_ - 1, cursor_);
        break;
    case control_key('A'): move_to(0); break;
    case control_key('E'): move_to(size_); break;
    case control_key('B'): move_to(cursor_ - std::min<std::size_t>(cursor_, 1)); break;
    case control_key('F'): move_to(std::min(cursor_ + 1, size_)); break;
    case control_key('D'): erase(cursor_, std::min(cursor_ + 1, size_)); break;
    case control_key('K'): erase(cursor_, size_); break;
    case control_key('U'): erase(0, cursor_); break;
    case control_key('W'): erase_word(); break;
    case control_key('P'): older(); break;
    case control_key('N'): newer(); break;
    case control_key('L'): redraw(); break;
    default: break;
    }
}

/// Cursor keys, as terminals send them [ecma48 8.3 Definition of control functions; xterm, PC-Style Function
/// Keys].
void LineEditor::escaped(char c) {
    if (state_ == State::escape) {
        state_ = c == '[' ? State::control_sequence : c == 'O' ? State::function : State::text;
        parameter_ = 0;
        return;
    }
    if (c >= '0' && c <= '9') {
        parameter_ = std::min(parameter_ * 10 + static_cast<unsigned>(c - '0'), 99U);
        return;
    }
    if (c >= ' ' && c < '@')  // more parameters, which say what else is held down
        return;
    state_ = State::text;
    control_sequence(c);
}

void LineEditor::control_sequence(char final) {
    switch (final) {
    case 'A': older(); break;
    case 'B': newer(); break;
    case 'C': control(control_key('F')); break;
    case 'D': control(control_key('B')); break;
    case 'H': move_to(0); break;
    case 'F': move_to(size_); break;
    case '~':
        if (parameter_ == 1 || parameter_ == 7)
            move_to(0);
        else if (parameter_ == 4 || parameter_ == 8)
            move_to(size_);
        else if (parameter_ == 3)
            control(control_key('D'));
        break;
    default: break;
    }
}

void LineEditor::insert(std::string_view text) {
    if (text.size() > kLineSize - size_) {
        bell();
        return;
    }
    std::copy_backward(text_.begin() + cursor_, text_.begin() + size_, text_.begin() + size_ + text.size());
    text.copy(text_.data() + cursor_, text.size());
    size_ += text.size();
    const std::size_t cursor = cursor_ + text.size();
    screen_.write(line().substr(cursor_));
    cursor_ = size_;
    move_to(cursor);
}

void LineEditor::move_to(std::size_t cursor) {
    if (cursor > cursor_)
        screen_.write(line().substr(cursor_, cursor - cursor_));
    for (; cursor_ > cursor; --cursor_)
        screen_.write("\b");
    cursor_ = cursor;
}

void LineEditor::erase(std::size_t from, std::size_t to) {
    if (from == to)
        return;
    move_to(from);
    std::copy(text_.begin() + to, text_.begin() + size_, text_.begin() + from);
    size_ -= to - from;
    screen_.write(line().substr(from));
    screen_.write(kEraseToEnd);
    cursor_ = size_;
    move_to(from);
}

void LineEditor::erase_word() {
    std::size_t from = cursor_;
    while (from > 0 && text_[from - 1] == ' ')
        --from;
    while (from > 0 && text_[from - 1] != ' ')
        --from;
    erase(from, cursor_);
}

void LineEditor::replace(std::string_view text) {
    move_to(0);
    size_ = text.copy(text_.data(), kLineSize);
    screen_.write(line());
    screen_.write(kEraseToEnd);
    cursor_ = size_;
}

void LineEditor::redraw() {
    screen_.write("\r");
    screen_.write(prompt_);
    screen_.write(line());
    screen_.write(kEraseToEnd);
    const std::size_t cursor = cursor_;
    cursor_ = size_;
    move_to(cursor);
}

// --- history -----------------------------------------------------------------------------------------------

void LineEditor::remember() {
    const bool blank = line().find_first_not_of(' ') == std::string_view::npos;
    if (blank || (remembered_ > 0 && std::string_view{history(1).text.data(), history(1).size} == line()))
        return;
    Line& latest = history_[remembered_++ % kHistorySize];
    latest.size = line().copy(latest.text.data(), kLineSize);
}

void LineEditor::older() {
    if (age_ == std::min(remembered_, kHistorySize)) {
        bell();
        return;
    }
    if (age_ == 0)
        typed_.size = line().copy(typed_.text.data(), kLineSize);
    ++age_;
    replace({history(age_).text.data(), history(age_).size});
}

void LineEditor::newer() {
    if (age_ == 0) {
        bell();
        return;
    }
    --age_;
    const Line& shown = age_ == 0 ? typed_ : history(age_);
    replace({shown.text.data(), shown.size});
}

}  // namespace hv
