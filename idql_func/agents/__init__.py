"""Learners: frozen pytrees whose methods return new ones, after ``jaxrl5/agents``."""

from idql_func.agents.agent import Agent
from idql_func.agents.bc import BCLearner
from idql_func.agents.checks import explained_learner
from idql_func.agents.ddpm_iql_learners import DDPMIQLLearner, GeneralDDPMIQLLearner
from idql_func.agents.drq import DrQLearner
from idql_func.agents.fql import FQLLearner
from idql_func.agents.ifql import IFQLLearner
from idql_func.agents.iql import IQLLearner
from idql_func.agents.pixel_bc import PixelBCLearner
from idql_func.agents.rebrac import ReBRACLearner
from idql_func.agents.sac import SACLearner
from idql_func.agents.td3 import TD3Learner

__all__ = [
    "Agent",
    "BCLearner",
    "DDPMIQLLearner",
    "DrQLearner",
    "FQLLearner",
    "GeneralDDPMIQLLearner",
    "IFQLLearner",
    "IQLLearner",
    "PixelBCLearner",
    "ReBRACLearner",
    "SACLearner",
    "TD3Learner",
]

for _name in __all__:
    explained_learner(globals()[_name])
