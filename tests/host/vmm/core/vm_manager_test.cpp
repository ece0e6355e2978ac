// SPDX-License-Identifier: MIT
#include "vmm/core/vm_fixture.hpp"

using namespace hv;
using namespace hv::test;

namespace {

struct Fixture : VmFixture {
    /// After the VMs have been added.
    void prepare() {
        manager.emplace(config, services(), consoles);
        jobs.manager = &*manager;
        manager->init().value();
    }
    void boot() {
        prepare();
        manager->autostart(VmManager::Needs::nothing);
        manager->autostart(VmManager::Needs::devices);
    }
    ~Fixture() {
        if (!manager)
            return;
        manager->shut_down();
        turn(30);
        CHECK(manager->all_ended());
        CHECK(consoles.opened == consoles.closed);
        jobs.manager = nullptr;
        manager.reset();
        CHECK(frames.outstanding() == 0);
    }
    void turn(unsigned times = 12) {
        for (unsigned i = 0; i < times; ++i)
            loop.turn();
    }
    /// The boot processor of the VM that was built last.
    fake::FakeVcpuBackend& boot_processor() { return *extension.backends[extension.backends.size() - 2]; }
    void power_off() {
        guest_out(boot_processor(), guest_map::kPm1aControl, 2, guest_map::kSleepTypeS5 << 10 | 1 << 13);
    }
    void debug_exit(std::uint32_t code) { guest_out(boot_processor(), guest_map::kDebugExit, 4, code); }
    void restart() { guest_out(boot_processor(), guest_map::kReset, 1, guest_map::kResetValue); }
    void triple_fault() { boot_processor().exits.push_back(exit_of(VmExit::Reason::shutdown)); }
    VmManager::Entry& entry(std::size_t index = 0) { return manager->entries()[index]; }

    std::optional<VmManager> manager;
};

}  // namespace

TEST_CASE("a VM that needs nothing of the host's devices starts before they are found", "[core]") {
    Fixture f;
    f.add("memory");
    f.add("disk").disks[0].source = config::DiskSource::disk;
    f.add("partition").disks[0].source = config::DiskSource::partition;
    f.add("uplink");
    f.add("later").autostart = false;
    f.config.switches.push({}).value();
    f.config.switches.push({.name = "outside", .uplink = "nic0"}).value();
    f.switches.push(net::Switch::create(f.clock).value()).value();
    f.config.vms[3].nics[0].switch_index = 1;
    f.prepare();
    const auto started = [&] {
        std::string names;
        for (const VmManager::Entry& entry : f.manager->entries())
            names += entry.vm != nullptr || entry.failed_to_start ? entry.config->name.substr(0, 1) : ".";
        return names;
    };
    CHECK(started() == ".....");
    f.manager->autostart(VmManager::Needs::nothing);
    CHECK(started() == "m....");
    f.manager->autostart(VmManager::Needs::devices);
    CHECK(started() == "mdpu.");  // the fixture has no disk: those two failed
}

TEST_CASE("a guest's power-off ends its VM well", "[core]") {
    Fixture f;
    f.add("a");
    f.boot();
    CHECK(f.entry().state == VmState::running);
    CHECK_FALSE(f.manager->all_ended());
    f.power_off();
    f.turn();
    CHECK(f.entry().state == VmState::ended);
    CHECK(f.entry().reason == VmStop::power_off);
    CHECK(f.manager->all_ended());
    CHECK(f.manager->all_ended_well());
    CHECK(f.frames.outstanding() == 0);
}

TEST_CASE("the debug exit's code tells whether a VM ended well", "[core]") {
    const std::uint32_t code = GENERATE(0U, 1U, 0x8000'0000U);
    Fixture f;
    f.add("a");
    f.boot();
    f.debug_exit(code);
    f.turn();
    CHECK(f.entry().reason == VmStop::exit_code);
    CHECK(f.entry().exit_code == code);
    CHECK(f.manager->all_ended_well() == (code == 0));
}

TEST_CASE("a triple fault ends its VM badly, and no other", "[core]") {
    Fixture f;
    f.add("a");
    f.add("b");
    f.boot();
    f.triple_fault();
    f.turn(24);
    CHECK(f.entry(1).reason == VmStop::crashed);
    CHECK(f.entry(0).state == VmState::running);
    CHECK_FALSE(f.manager->all_ended());
    CHECK_FALSE(f.manager->all_ended_well());
}

TEST_CASE("a guest's reset starts it anew", "[core]") {
    Fixture f;
    f.add("a");
    f.boot();
    const Vm* vm = f.entry().vm.get();
    f.restart();
    f.turn();
    CHECK(f.entry().state == VmState::running);
    CHECK(f.entry().vm.get() == vm);
    CHECK(f.entry().resets == 1);
    CHECK(f.boot_processor().regs.rip == 0x100'0000);
    f.power_off();
    f.turn();
    CHECK(f.manager->all_ended_well());
}

TEST_CASE("restart policies", "[core]") {
    const auto policy = GENERATE(config::Restart::no, config::Restart::on_failure, config::Restart::always);
    const bool well = GENERATE(true, false);
    Fixture f;
    f.add("a").restart = policy;
    f.boot();
    if (well)
        f.power_off();
    else
        f.triple_fault();
    f.turn();
    const bool runs = policy == config::Restart::always || (policy == config::Restart::on_failure && !well);
    CHECK((f.entry().state == VmState::running) == runs);
    CHECK(f.entry().resets == (runs ? 1 : 0));
    CHECK(f.extension.backends.size() == (runs ? 4 : 2));
    SECTION("but not against the host's will") {
        if (runs) {
            f.manager->stop(f.entry()).value();
            f.turn();
            CHECK(f.entry().state == VmState::ended);
            CHECK(f.entry().reason == VmStop::by_host);
        }
    }
}

TEST_CASE("the host's stop wins over a reset that the guest asked for", "[core]") {
    Fixture f;
    f.add("a");
    f.boot();
    f.turn(4);
    f.entry().vm->request_stop(VmStop::reset, 0);
    f.manager->stop(f.entry()).value();
    CHECK(f.entry().state == VmState::stopping);
    f.turn();
    CHECK(f.entry().state == VmState::ended);
    CHECK(f.entry().reason == VmStop::by_host);
    CHECK(f.manager->all_ended_well());
}

TEST_CASE("the host resets, stops, starts", "[core]") {
    Fixture f;
    f.add("a");
    f.boot();
    f.turn(4);
    CHECK(f.manager->start(f.entry()).error() == Error::busy);
    f.manager->reset(f.entry()).value();
    f.turn();
    CHECK(f.entry().state == VmState::running);
    CHECK(f.entry().resets == 1);
    f.manager->press_power_button(f.entry()).value();
    f.manager->stop(f.entry()).value();
    f.turn();
    CHECK(f.entry().state == VmState::ended);
    CHECK(f.manager->stop(f.entry()).error() == Error::not_found);
    CHECK(f.manager->reset(f.entry()).error() == Error::not_found);
    CHECK(f.manager->press_power_button(f.entry()).error() == Error::not_found);
    CHECK(f.manager->start(f.entry()).has_value());
    CHECK(f.entry().state == VmState::running);
    CHECK(f.manager->find("a") == &f.entry());
    CHECK(f.manager->find("b") == nullptr);
}

TEST_CASE("the host sets how much a balloon should hold", "[core]") {
    Fixture f;
    f.add("a");
    f.add("b").balloon = false;
    f.boot();
    const virtio::VirtioBalloon& balloon = *f.entry().vm->devices().balloon();
    CHECK(balloon.target() == 0);
    f.manager->set_balloon(f.entry(), 8 * kMiB + 5).value();
    CHECK(balloon.target() == 2048);
    CHECK(balloon.read_config(0, 4) == 2048);
    f.manager->set_balloon(f.entry(), 32 * kMiB).value();
    CHECK(balloon.target() == 8192);
    CHECK(f.manager->set_balloon(f.entry(), 32 * kMiB + 1).error() == Error::out_of_range);
    CHECK(f.manager->set_balloon(f.entry(), ~std::uint64_t{0}).error() == Error::out_of_range);
    CHECK(balloon.target() == 8192);
    CHECK(f.manager->set_balloon(f.entry(1), 0).error() == Error::unsupported);
    // A VM that starts anew is asked again.
    f.manager->reset(f.entry()).value();
    f.turn();
    CHECK(f.entry().resets == 1);
    CHECK(balloon.target() == 8192);
    f.manager->stop(f.entry()).value();
    f.turn();
    CHECK(f.manager->set_balloon(f.entry(), 0).error() == Error::not_found);
}

TEST_CASE("VMs that are right start, and the others are not forgotten", "[core]") {
    Fixture f;
    f.add("wrong").valid = false;
    f.add("no kernel").kernel = "nothing";
    f.add("later").autostart = false;
    f.add("right");
    f.boot();
    CHECK(f.entry(0).failed_to_start);
    CHECK(f.entry(1).failed_to_start);
    CHECK(f.entry(2).state == VmState::stopped);
    CHECK_FALSE(f.entry(2).failed_to_start);
    CHECK(f.entry(3).state == VmState::running);
    CHECK(f.manager->start(f.entry(0)).error() == Error::invalid_argument);
    f.power_off();
    f.turn();
    CHECK(f.manager->all_ended());
    CHECK_FALSE(f.manager->all_ended_well());
}

TEST_CASE("a VM without a console does not start", "[core]") {
    Fixture f;
    f.add("a");
    f.consoles.fails = true;
    f.boot();
    CHECK(f.entry().failed_to_start);
    CHECK(f.entry().vm == nullptr);
}

TEST_CASE("after a shut-down nothing starts again", "[core]") {
    Fixture f;
    f.add("a").restart = config::Restart::always;
    f.add("b");
    f.boot();
    f.manager->shut_down();
    f.turn(24);
    CHECK(f.manager->all_ended());
    CHECK(f.manager->all_ended_well());
    CHECK(f.manager->start(f.entry()).error() == Error::busy);
}

TEST_CASE("the cable of a VM's NIC is pulled and plugged in", "[core]") {
    using Link = virtio::VirtioNet::Link;
    Fixture f;
    f.add("a");
    f.boot();
    CHECK(f.manager->set_link(f.entry(), 1, Link::down).error() == Error::out_of_range);
    const std::size_t timers = f.clock.armed();
    CHECK(f.manager->set_link(f.entry(), 0, Link::up));
    CHECK(f.clock.armed() == timers);  // it is plugged in already
    CHECK(f.manager->set_link(f.entry(), 0, Link::down));
    CHECK(f.manager->set_link(f.entry(), 0, Link::up));
    CHECK(f.clock.armed() == timers + 1);  // the guest is to announce itself
    CHECK(f.manager->stop(f.entry()));
    f.turn();
    CHECK(f.manager->set_link(f.entry(), 0, Link::up).error() == Error::not_found);
}
