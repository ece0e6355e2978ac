// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "fakes/machine.hpp"
#include "vmm/base/log.hpp"
#include "vmm/config/config.hpp"
#include "vmm/monitor/host_commands.hpp"
#include "vmm/monitor/stats_command.hpp"
#include "vmm/monitor/vm_command.hpp"
#include "vmm/monitor/words.hpp"

#include <string>
#include <vector>

using namespace hv;

namespace {

using Result = MonitorCommand::Result;

class FakeOutput final : public Output {
public:
    void write(std::string_view more) override { text += more; }
    std::string text;
};

class FakeVms final : public VmDirectory {
public:
    FakeVms() {
        add("web", 2, 256 * kMiB);
        add("db", 1, 3 * kGiB / 2);
    }
    void add(std::string_view name, std::uint32_t cpus, std::uint64_t memory) {
        config::VmConfig vm;
        vm.name = name;
        vm.cpus = cpus;
        vm.memory = memory;
        vms.push_back(std::move(vm));
        running.push_back(false);
    }
    [[nodiscard]] std::size_t size() const override { return vms.size(); }
    [[nodiscard]] const config::VmConfig& config(std::size_t index) const override { return vms.at(index); }
    [[nodiscard]] Status status(std::size_t index) const override {
        Status status{running.at(index) ? "running" : "ended", {}, 3, running.at(index), 123 * kKiB};
        if (!running.at(index))
            status.ending.append("powered off");
        return status;
    }
    [[nodiscard]] std::optional<VcpuStatistics> vcpu(std::size_t index, std::uint32_t vcpu) const override {
        if (!running.at(index))
            return std::nullopt;
        VcpuStatistics statistics{};
        statistics.exits[static_cast<unsigned>(VmExit::Reason::hlt)] = 30 + vcpu;
        statistics.exits[static_cast<unsigned>(VmExit::Reason::cpuid)] = 10;
        statistics.run_ticks = 41'000;
        statistics.run_ns = run_ns;
        statistics.wait_ns = 250'000'000;
        statistics.wakes = 4 * vcpu;
        statistics.wake_ns = 50'000 * vcpu;
        statistics.most_wake_ns = 12'345'678;
        statistics.age_ns = age_ns;
        return statistics;
    }
    [[nodiscard]] std::optional<DiskStatistics> disk(std::size_t index, std::size_t disk) const override {
        if (!running.at(index))
            return std::nullopt;
        return DiskStatistics{7 + disk, 48 * kKiB, 3, 2 * kMiB, 5, 1, 128 * kKiB};
    }
    Expected<void> start(std::size_t index) override { return note("start", index); }
    Expected<void> stop(std::size_t index) override { return note("stop", index); }
    Expected<void> reset(std::size_t index) override { return note("reset", index); }
    Expected<void> press_power_button(std::size_t index) override { return note("button", index); }
    Expected<void> set_link(std::size_t index, std::size_t nic, Link link) override {
        if (nic > 1)
            return Unexpected{Error::out_of_range};
        return note(link == Link::up ? "link up" : "link down", index);
    }
    Expected<void> set_balloon(std::size_t index, std::uint64_t bytes) override {
        if (bytes > vms.at(index).memory)
            return Unexpected{Error::out_of_range};
        balloon.target = bytes;
        return note("balloon", index);
    }
    Expected<Balloon> look_at_balloon(std::size_t index) override {
        HV_TRY(note("look", index));
        return balloon;
    }
    void show_console(std::size_t index) override { static_cast<void>(note("console", index)); }
    Expected<void> connect(std::size_t index, std::uint32_t port) override {
        return note(("connect " + std::to_string(port)).c_str(), index);
    }

    Expected<void> note(const char* what, std::size_t index) {
        calls.push_back(std::string{what} + " " + std::string{vms.at(index).name});
        if (failure)
            return Unexpected{*failure};
        return {};
    }

    std::vector<config::VmConfig> vms;
    std::vector<bool> running;
    std::uint64_t run_ns{1'500'000'000};
    std::uint64_t age_ns{6'000'000'000};
    std::vector<std::string> calls;
    Balloon balloon{};
    std::optional<Error> failure;
};

class FakeHost final : public HostInfo {
public:
    [[nodiscard]] std::uint32_t cpu_count() const override { return 3; }
    [[nodiscard]] Cpu cpu(std::uint32_t index) const override {
        return {index * 2, index == 1 ? "web/0" : ""};
    }
    [[nodiscard]] std::string_view virtualization() const override { return "VT-x"; }
    [[nodiscard]] FrameStatistics frames() const override { return {2 * kGiB, kGiB, 18}; }
    [[nodiscard]] HeapStatistics heap() const override { return {42, 5 * kMiB, 6 * kMiB}; }
    [[nodiscard]] std::uint64_t uptime_ns() const override { return uptime; }
    void power_off() override { ended = "off"; }
    void reboot() override { ended = "reboot"; }
    std::string ended;
    std::uint64_t uptime{12'345'000'000};
};

struct Answer {
    Result result;
    std::string text;
};

Answer run(MonitorCommand& command, std::string_view arguments) {
    FakeOutput out;
    const Words words{arguments};
    const Result result = command.run(words.all(), out);
    return {result, out.text};
}

std::vector<std::string> completions(const MonitorCommand& command, std::string_view arguments,
                                     std::string_view begun = "") {
    Completion completion{begun};
    const Words words{arguments};
    command.complete(words.all(), completion);
    return {completion.words().begin(), completion.words().end()};
}

bool contains(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("vm list shows all VMs", "[monitor]") {
    FakeVms vms;
    vms.running[0] = true;
    VmCommand command{vms};
    const auto [result, text] = run(command, "list");
    CHECK(result == Result::done);
    CHECK(text == "NAME                 STATE     VCPUS     MEMORY  RESETS  LAST END\n"
                  "web                  running       2    256 MiB       3  \n"
                  "db                   ended         1    1.5 GiB       3  powered off\n");
    vms.vms.clear();
    CHECK(run(command, "list").text == "The configuration has no VMs.\n");
}

TEST_CASE("vm show tells all about one", "[monitor]") {
    FakeVms vms;
    auto& web = vms.vms[0];
    web.cap = 50;
    REQUIRE(web.pin.push(0));
    REQUIRE(web.pin.push(3));
    web.kernel = "vmlinuz";
    const std::string long_line(2000, 'c');
    web.command_line = long_line;
    REQUIRE(web.disks.push({config::DiskSource::module, "base.img", 0, config::DiskMode::copy_on_write}));
    REQUIRE(web.disks.push({config::DiskSource::ram, "", 64 * kMiB, config::DiskMode::read_write}));
    REQUIRE(web.nics.push({0, MacAddress{0x52, 0x54, 0, 0, 0, 1}, 10, 100'000'000}));
    VmCommand command{vms};
    const auto [result, text] = run(command, "show web");
    CHECK(result == Result::done);
    for (const char* part :
         {"web: ended, powered off, 3 resets\n", "2 vCPUs, weight 100, at most 50 % of a CPU, on CPUs 0 3\n",
          "256 MiB\n", "kernel     vmlinuz\n", "disk       module:base.img, cow\n",
          "disk       ram:64 MiB, rw\n", "nic        52:54:00:00:00:01, VLAN 10, at most 100000 kbit/s\n",
          "restart    no\n", "autostart  yes\n"})
        CHECK(contains(text, part));
    CHECK(contains(text, long_line + "\n"));
    CHECK_FALSE(contains(text, "initrd"));
    CHECK_FALSE(contains(text, "reads of"));
    vms.running[0] = true;
    const std::string of_running = run(command, "show web").text;
    CHECK(contains(of_running,
                   "disk       module:base.img, cow\n"
                   "             7 reads of 48 KiB, 3 writes of 2 MiB, 5 flushes, 1 errors, 128 KiB of "
                   "memory\n"
                   "  disk       ram:64 MiB, rw\n"
                   "             8 reads of 48 KiB, 3 writes of 2 MiB, 5 flushes, 1 errors\n"));
    vms.running[0] = false;
    CHECK_FALSE(contains(text, "123 KiB"));
    vms.running[0] = true;
    CHECK(contains(run(command, "show web").text, "123 KiB\n"));
    vms.vms[1].valid = false;
    vms.vms[1].line = 7;
    CHECK(contains(run(command, "show db").text, "from line 7 on, is wrong"));
}

TEST_CASE("vm acts on the VM that is named", "[monitor]") {
    FakeVms vms;
    VmCommand command{vms};
    CHECK(run(command, "start db").text == "db started\n");
    CHECK(run(command, "stop web").text == "web is being stopped\n");
    CHECK(run(command, "reset web").text == "web is being reset\n");
    CHECK(run(command, "button db").text == "db had its power button pressed\n");
    CHECK(run(command, "console db").text.empty());
    CHECK(vms.calls ==
          std::vector<std::string>{"start db", "stop web", "reset web", "button db", "console db"});
}

TEST_CASE("vm says why it could not", "[monitor]") {
    FakeVms vms;
    VmCommand command{vms};
    vms.failure = Error::not_found;
    CHECK(run(command, "stop web").text == "web does not run\n");
    vms.failure = Error::busy;
    CHECK(contains(run(command, "start web").text, "runs already"));
    vms.failure = Error::no_memory;
    CHECK(run(command, "start web").text == "web: out of memory; the log may tell more\n");
    const auto [result, text] = run(command, "stop wbe");
    CHECK(result == Result::done);
    CHECK(text == "There is no VM \"wbe\"; there are: web db\n");
}

TEST_CASE("vm link plugs cables in and pulls them", "[monitor]") {
    FakeVms vms;
    VmCommand vm{vms};
    CHECK(run(vm, "link db 1 down").text == "db has no link any more\n");
    CHECK(run(vm, "link db 0 up").text == "db has a link\n");
    CHECK(vms.calls == std::vector<std::string>{"link down db", "link up db"});
    CHECK(contains(run(vm, "link db 7 up").text, "db has 0 NICs"));
    CHECK(contains(run(vm, "link nobody 0 up").text, "no VM \"nobody\""));
    for (const char* wrong : {"link", "link db", "link db 0", "link db x up", "link db 0 sideways"})
        CHECK(run(vm, wrong).result == Result::wrong_arguments);
    CHECK(vms.calls.size() == 2);
}

TEST_CASE("vm balloon sets and shows what a guest does without", "[monitor]") {
    FakeVms vms;
    VmCommand vm{vms};
    CHECK(run(vm, "balloon web 64M").text == "web has been asked\n");
    CHECK(vms.balloon.target == 64 * kMiB);
    vms.balloon.actual = 48 * kMiB;
    vms.balloon.given_back = 46 * kMiB;
    CHECK(run(vm, "balloon web").text ==
          "web: 48 MiB in its balloon, 64 MiB asked for; 46 MiB given back to the host\n");
    vms.balloon.total = 240 * kMiB;
    vms.balloon.available = 0;
    CHECK(run(vm, "balloon web").text ==
          "web: 48 MiB in its balloon, 64 MiB asked for; 46 MiB given back to the host\n"
          "  total      240 MiB\n"
          "  available  0 B\n");
    CHECK(run(vm, "balloon web 0").text == "web has been asked\n");
    CHECK(vms.balloon.target == 0);
    CHECK(run(vm, "balloon web 257M").text == "web has 256 MiB of memory\n");
    CHECK(contains(run(vm, "balloon nobody").text, "no VM \"nobody\""));
    for (const char* wrong : {"balloon", "balloon web much", "balloon web -1", "balloon web 1M 2M"})
        CHECK(run(vm, wrong).result == Result::wrong_arguments);
    CHECK(vms.calls == std::vector<std::string>{"balloon web", "look web", "look web", "balloon web"});
    vms.failure = Error::unsupported;
    CHECK(run(vm, "balloon db").text == "db has no balloon\n");
    CHECK(run(vm, "balloon db 1M").text == "db has no balloon\n");
    vms.failure = Error::not_found;
    CHECK(run(vm, "balloon db").text == "db does not run\n");
}

TEST_CASE("vm takes nothing else", "[monitor]") {
    FakeVms vms;
    VmCommand command{vms};
    for (const char* wrong : {"", "list web", "show", "start", "fly web", "stop web db", "web"})
        CHECK(run(command, wrong).result == Result::wrong_arguments);
    CHECK(vms.calls.empty());
}

TEST_CASE("vm connect gives the line away, or says why not", "[monitor]") {
    FakeVms vms;
    VmCommand command{vms};
    vms.running[0] = true;
    CHECK(run(command, "connect web 1024").text.empty());
    CHECK(run(command, "connect web 4294967295").text.empty());
    CHECK(vms.calls == std::vector<std::string>{"connect 1024 web", "connect 4294967295 web"});
    for (const char* wrong :
         {"connect", "connect web", "connect web x", "connect web 4294967296", "connect web 1 2"})
        CHECK(run(command, wrong).result == Result::wrong_arguments);
    CHECK(contains(run(command, "connect mail 1").text, "There is no VM \"mail\""));
    CHECK(vms.calls.size() == 2);
    vms.failure = Error::unsupported;
    CHECK(run(command, "connect web 1").text == "web has no vsock\n");
    vms.failure = Error::busy;
    CHECK(run(command, "connect web 1").text == "web has as many connections as there can be\n");
    vms.failure = Error::not_found;
    CHECK(run(command, "connect web 1").text == "web has no driver that uses its vsock\n");
    CHECK(run(command, "connect db 1").text == "db does not run\n");
}

TEST_CASE("vm completes subcommands and names", "[monitor]") {
    FakeVms vms;
    VmCommand command{vms};
    CHECK(completions(command, "", "st") == std::vector<std::string>{"start", "stop"});
    CHECK(completions(command, "").size() == 10);
    CHECK(completions(command, "balloon") == std::vector<std::string>{"web", "db"});
    CHECK(completions(command, "stop") == std::vector<std::string>{"web", "db"});
    CHECK(completions(command, "list").empty());
    CHECK(completions(command, "stop web").empty());
}

TEST_CASE("stats shows what runs", "[monitor]") {
    FakeVms vms;
    vms.running[0] = true;
    FakeHost host;
    StatsCommand command{host, vms};
    const auto [result, text] = run(command, "");
    CHECK(result == Result::done);
    CHECK(text ==
          "PER CENT OF A CPU              GOT       DUE     CAP            RAN         WAITED\n"
          "web                         50.0 %   200.0 %       -        3.000 s        0.500 s\n"
          "web/0                       25.0 %   100.0 %                1.500 s        0.250 s\n"
          "web/1                       25.0 %   100.0 %                1.500 s        0.250 s\n"
          "VCPU                      WAKE-UPS   MEAN LATE   MOST LATE          EXITS     TICKS/EXIT\n"
          "web/0                            0      0.0 us     12.3 ms             40           1025\n"
          "web/1                            4     12.5 us     12.3 ms             41           1000\n");
    const std::string web = run(command, "web").text;
    CHECK(contains(web, std::string{to_string(VmExit::Reason::hlt)} +
                            std::string(24 - std::string{to_string(VmExit::Reason::hlt)}.size(), ' ') +
                            "             61            753\n"));
    CHECK(contains(web, "             20            246\n"));
    CHECK(std::count(web.begin(), web.end(), '\n') == 10);
    CHECK(run(command, "db").text == "db does not run\n");
    CHECK(contains(run(command, "x").text, "there are: web db"));
    CHECK(run(command, "web db").result == Result::wrong_arguments);
    CHECK(completions(command, "") == std::vector<std::string>{"web", "db"});
}

TEST_CASE("stats shows shares since it was asked last", "[monitor]") {
    FakeVms vms;
    vms.running = {false, true};
    FakeHost host;
    StatsCommand command{host, vms};
    CHECK(contains(run(command, "db").text, "db                          25.0 %   100.0 %"));
    const auto later = [&](std::uint64_t ns, std::uint64_t ran) {
        host.uptime += ns;
        vms.age_ns += ns;
        vms.run_ns += ran;
        return run(command, "").text;
    };
    CHECK(contains(later(1'000'000'000, 999'000'000), "db                          99.9 %"));
    CHECK(contains(later(2'000'000'000, 0), "db                           0.0 %"));
    // Its VM was built anew, and counts from then on.
    vms.age_ns = 0;
    vms.run_ns = 0;
    CHECK(contains(later(1'000'000'000, 750'000'000), "db                          75.0 %"));
}

TEST_CASE("stats shows what each VM is owed", "[monitor]") {
    FakeVms vms;
    vms.add("heavy", 8, 16 * kMiB);
    vms.running = {true, true, true};
    FakeHost host;  // of 3 CPUs
    StatsCommand command{host, vms};
    const auto due = [&](std::string_view vm) {
        const std::string text = run(command, vm).text;
        return text.substr(text.find('\n') + 1 + 35, 10);
    };
    CHECK(due("web") == "  100.0 % ");
    vms.vms[2].weight = 300;
    CHECK(due("web") == "   60.0 % ");
    CHECK(due("heavy") == "  180.0 % ");
    vms.vms[2].cap = 150;  // what it may not have, the others get
    CHECK(due("web") == "   75.0 % ");
    CHECK(due("heavy") == "  150.0 % ");
    CHECK(contains(run(command, "heavy").text, "  150.0 %   150 % "));
    REQUIRE(vms.vms[0].pin.push(2));
    vms.vms[2].cap = 20;
    CHECK(due("web") == "  100.0 % ");
    CHECK(due("db") == "  100.0 % ");
    CHECK(due("heavy") == "   20.0 % ");
}

TEST_CASE("mem shows the host's memory and that of the VMs", "[monitor]") {
    FakeVms vms;
    vms.running[1] = true;
    const FakeHost host;
    MemCommand command{host, vms};
    const auto [result, text] = run(command, "");
    CHECK(result == Result::done);
    for (const char* part :
         {"host, for use                   2 GiB\n", "free                            1 GiB\n",
          "heap                            6 MiB\n", "5 MiB in 42 objects\n",
          "VM db                         1.5 GiB, and 123 KiB beside\n"})
        CHECK(contains(text, part));
    CHECK_FALSE(contains(text, "web"));
    CHECK(run(command, "x").result == Result::wrong_arguments);
}

TEST_CASE("cpu shows what the CPUs run", "[monitor]") {
    const FakeHost host;
    CpuCommand command{host};
    CHECK(run(command, "").text == "3 CPUs with VT-x, up for 12.345 s\n"
                                   " CPU  APIC ID  RUNS\n"
                                   "   0        0  -\n"
                                   "   1        2  web/0\n"
                                   "   2        4  -\n");
    CHECK(run(command, "1").result == Result::wrong_arguments);
}

TEST_CASE("log shows the lines kept and sets the level", "[monitor]") {
    LogCommand command;
    log::info(log::Topic::monitor, "a line for the log's test");
    CHECK(contains(run(command, "").text, "monitor: a line for the log's test\n"));
    CHECK(run(command, "error").text == "The log says error and what is graver.\n");
    log::info(log::Topic::monitor, "unheard");
    CHECK_FALSE(contains(run(command, "").text, "unheard"));
    CHECK(run(command, "info").result == Result::done);
    log::info(log::Topic::monitor, "heard");
    CHECK(contains(run(command, "").text, "heard"));
    CHECK(run(command, "loud").result == Result::wrong_arguments);
    CHECK(run(command, "info info").result == Result::wrong_arguments);
    CHECK(completions(command, "", "d") == std::vector<std::string>{"debug"});
}

TEST_CASE("poweroff and reboot end the host", "[monitor]") {
    FakeHost host;
    PowerCommand power_off{host, PowerCommand::Kind::power_off};
    PowerCommand reboot{host, PowerCommand::Kind::reboot};
    CHECK(power_off.name() == "poweroff");
    CHECK(run(power_off, "now").result == Result::wrong_arguments);
    CHECK(host.ended.empty());
    run(power_off, "");
    CHECK(host.ended == "off");
    run(reboot, "");
    CHECK(host.ended == "reboot");
}

TEST_CASE("each usage names the command on every line", "[monitor]") {
    FakeVms vms;
    FakeHost host;
    VmCommand vm{vms};
    StatsCommand stats{host, vms};
    MemCommand mem{host, vms};
    CpuCommand cpu{host};
    LogCommand log;
    PowerCommand power{host, PowerCommand::Kind::power_off};
    for (const MonitorCommand* command :
         std::initializer_list<MonitorCommand*>{&vm, &stats, &mem, &cpu, &log, &power}) {
        std::string_view usage = command->usage();
        REQUIRE(usage.ends_with('\n'));
        while (!usage.empty()) {
            CHECK(usage.starts_with(command->name()));
            usage.remove_prefix(usage.find('\n') + 1);
        }
        CHECK_FALSE(command->help().empty());
    }
}
