// SPDX-License-Identifier: MIT
// Carries a capture to the console: base64 [rfc4648 4 Base 64 Encoding] in lines that begin with "pcap ", as
// fast as they can be shown, and at the end how much there was. `./cairn pcap` makes a file of them.
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/monitor/live_output.hpp"
#include "vmm/net/capture.hpp"
#include "vmm/net/switch.hpp"

namespace hv {

class CaptureStream {
public:
    /// Both outlive the stream. Boot CPU, as all else.
    CaptureStream(net::Capture& capture, LiveOutput& out) : capture_{capture}, out_{out} {}

    /// Error::busy: it is under way already.
    Expected<void> start(net::Switch& the_switch, const net::Capture::Choice& choice);
    /// What was captured is still shown. Error::not_found: there is none.
    Expected<void> stop();

    /// Shows what there is room for, a bounded amount. To be called when has_work(), and whenever the console
    /// was serviced.
    void service();
    /// Any CPU; the boot CPU is kicked when it becomes true.
    [[nodiscard]] bool has_work() const { return capture_.ready(); }

private:
    void show_some();
    void finish();

    net::Capture& capture_;
    LiveOutput& out_;
    net::Switch* switch_{nullptr};  ///< of the capture that is under way
    bool running_{false};           ///< there is something to be shown yet, the end at least
    bool resting_{true};
};

}  // namespace hv
