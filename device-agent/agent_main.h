/* agent_main.h - the agent's command line as a function: nas-agent on a device is this and nothing else, nas-agent on
 * the controller adds the commands for phones (tools/nas_agent.c). */
#ifndef NAS_DEVICE_AGENT_AGENT_MAIN_H
#define NAS_DEVICE_AGENT_AGENT_MAIN_H

/* nas_agent_main - returns the exit code. */
int nas_agent_main(int argc, char **argv);

#endif
